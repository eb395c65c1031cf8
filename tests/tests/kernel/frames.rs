//! Frames through the loaded programs, over the table of cases that the host's tests use too.

use ingress_ebpf::fixtures::{World, cases, outcome};
use ingress_lab::programs::Programs;

use super::can_run;

#[test]
fn steer_does_with_each_case_what_the_table_says() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let programs = Programs::load(&world, false).unwrap();
    for case in cases(&world) {
        let before = programs.counters().unwrap();
        let run = programs.run("steer", &case.frame, 1).unwrap();
        let after = programs.counters().unwrap();
        let grown: Vec<_> = before
            .iter()
            .zip(&after)
            .filter(|(b, a)| a.1 != b.1)
            .map(|(b, a)| (a.0, a.1 - b.1))
            .collect();
        assert_eq!(run.action, case.expected.action, "{}", case.name);
        assert_eq!(run.frame, case.expected.frame, "{}", case.name);
        assert_eq!(grown, [(case.expected.reason, 1)], "{}", case.name);
    }
}

#[test]
fn steer_does_with_a_frame_cut_anywhere_what_the_host_does() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let programs = Programs::load(&world, false).unwrap();
    for case in cases(&world) {
        // The kernel runs no frame without an Ethernet header.
        for length in 14..case.frame.len().min(160) {
            let frame = &case.frame[..length];
            let expected = outcome(&world, frame);
            let run = programs.run("steer", frame, 1).unwrap();
            assert_eq!(
                (run.action, &run.frame),
                (expected.action, &expected.frame),
                "{} cut to {length}",
                case.name
            );
        }
    }
}

#[test]
fn undoing_puts_each_frame_back_as_it_was() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let programs = Programs::load(&world, true).unwrap();
    for case in cases(&world) {
        let run = programs.run("steer", &case.frame, 3).unwrap();
        assert_eq!(
            (run.action, run.frame),
            (case.expected.action, case.frame),
            "{}",
            case.name
        );
    }
}

#[test]
fn programs_stay_within_the_verifier_budget() {
    if !can_run() {
        return;
    }
    let programs = Programs::load(&World::new(), false).unwrap();
    let counts = programs.verified_instructions().unwrap();
    println!("verified instructions: {counts:?}");
    assert!(
        counts
            .iter()
            .all(|(_, count)| *count > 0 && *count < 20_000),
        "{counts:?}"
    );
}
