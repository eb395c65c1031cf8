//! Frames through the loaded programs, over the table of cases that the host's tests use too.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use ingress_ebpf::{
    abi::{Bucket, FirstHop, Mac, Node, Unit, VipKey4, VipKey6, VipValue, service},
    fixtures::{
        Action, OTHER_INTERFACE, Owner, VIP, World, cases, outcome,
        packet::{CLIENT, Packet},
    },
    flow::Flow,
    reason::Reason,
    tables::Tables,
    verdict::{Verdict, steer},
};
use ingress_lab::{
    programs::{Programs, logging_object, undoing_object},
    skipped,
};

use super::{can_run, machine};

#[test]
fn steer_does_with_each_case_what_the_table_says() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let programs = Programs::load(&world).unwrap();
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
    let programs = Programs::load(&world).unwrap();
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

/// The maps of a world, and what was counted of its VIPs: packets, bytes, SYNs, drops.
struct Counting<'a> {
    world: &'a World,
    vips: RefCell<BTreeMap<u32, [u64; 4]>>,
}

impl Tables for Counting<'_> {
    fn unit(&self) -> Option<(u16, &Unit)> {
        self.world.unit()
    }

    fn is_own_mac(&self, mac: Mac) -> bool {
        self.world.is_own_mac(mac)
    }

    fn mac_here(&self) -> Option<Mac> {
        self.world.mac_here()
    }

    fn vip4(&self, key: &VipKey4) -> Option<&VipValue> {
        self.world.vip4(key)
    }

    fn vip6(&self, key: &VipKey6) -> Option<&VipValue> {
        self.world.vip6(key)
    }

    fn first_hop(&self, unit: u16, pool: u8, index: u32) -> Option<FirstHop> {
        self.world.first_hop(unit, pool, index)
    }

    fn bucket(&self, unit: u16, pool: u8, index: u32) -> Option<&Bucket> {
        self.world.bucket(unit, pool, index)
    }

    fn node(&self, unit: u16, id: u16) -> Option<&Node> {
        self.world.node(unit, id)
    }

    fn is_peer_mac(&self, mac: Mac) -> bool {
        self.world.is_peer_mac(mac)
    }

    fn may_send_on(&self) -> bool {
        true
    }

    fn is_listening(&self, set: u8, hash: u32) -> bool {
        self.world.is_listening(set, hash)
    }

    fn has4(&self, flow: &Flow<u32>, cookie: Option<usize>) -> bool {
        self.world.has4(flow, cookie)
    }

    fn has6(&self, flow: &Flow<[u32; 4]>, cookie: Option<usize>) -> bool {
        self.world.has6(flow, cookie)
    }

    fn came(&self, vip: u32, bytes: usize, is_opening: bool) {
        let mut vips = self.vips.borrow_mut();
        let [packets, sum, syns, _] = vips.entry(vip).or_default();
        *packets += 1;
        *sum += bytes as u64;
        *syns += u64::from(is_opening);
    }

    fn dropped(&self, vip: u32) {
        self.vips.borrow_mut().entry(vip).or_default()[3] += 1;
    }
}

#[test]
fn steer_counts_what_comes_for_each_vip_and_what_goes_to_each_node() {
    if !can_run() {
        return;
    }
    let settled = World::new();
    let changing = World::new().with_hops([Owner::Udp, Owner::Six]);
    for world in [&settled, &changing] {
        let counting = Counting {
            world,
            vips: RefCell::default(),
        };
        let mut nodes = BTreeMap::<u16, [u64; 4]>::new();
        let programs = Programs::load(world).unwrap();
        for case in cases(&settled) {
            let decision = steer(case.frame.as_slice(), &counting);
            let at = match decision.verdict {
                Verdict::Encapsulate { .. } if decision.reason == Reason::SecondChance => Some(1),
                Verdict::Encapsulate { .. } | Verdict::ForwardL2 { .. } => Some(0),
                Verdict::Decapsulate { .. } | Verdict::Drop => Some(2),
                Verdict::Pass => None,
            };
            if let Some(at) = at {
                let counts = nodes.entry(decision.node).or_default();
                counts[at] += 1;
                counts[3] += u64::from(decision.is_skewed);
            }
            programs.run("steer", &case.frame, 1).unwrap();
        }
        let vips = counting.vips.into_inner();
        // All of IPv4 and all of IPv6 that the cases are for.
        assert!(vips.len() > 2, "{vips:?}");
        for index in 0..8 {
            let expected = vips.get(&index).copied().unwrap_or_default();
            let counted = programs.vip_counters(index).unwrap();
            assert_eq!(counted, expected, "VIP {index}");
        }
        assert!(nodes.len() > 4, "{nodes:?}");
        for owner in Owner::ALL {
            let id = owner as u16;
            let expected = nodes.get(&id).copied().unwrap_or_default();
            let counted = programs.node_counters(id).unwrap();
            assert_eq!(counted, expected, "{owner:?}");
        }
    }
}

/// Each way that a packet may come in and go on: the new headers are longer than the old ones, or shorter.
#[test]
fn steer_sends_a_peers_packet_on_as_the_host_does() {
    if !can_run() {
        return;
    }
    machine("onward").run(|| {
        let world = World::new();
        let programs = Programs::load(&world).unwrap();
        let of = |owner: Owner, is_v6| -> IpAddr {
            if is_v6 {
                owner.address6().into()
            } else {
                owner.address().into()
            }
        };
        let nexts = [Owner::Udp, Owner::Six, Owner::Tagged, Owner::Elsewhere];
        for (outer, inner) in [(false, false), (false, true), (true, false), (true, true)] {
            for vlans in [vec![], vec![7], vec![7, 8]] {
                for next in nexts {
                    let base = Packet::default();
                    let inside = if inner { base.six() } else { base.clone() };
                    let mut payload = vec![0x12, 0x90 | u8::from(inner), 0, Owner::L2 as u8];
                    payload.extend([0, next as u8, 0, Owner::Udp as u8]);
                    payload.extend(inside.packet());
                    let frame = Packet {
                        vlans: vlans.clone(),
                        source: of(Owner::L2, outer),
                        destination: of(Owner::Own, outer),
                        protocol: 17,
                        destination_port: 17_986,
                        payload,
                        padding: 3,
                        ..base
                    }
                    .bytes();
                    let expected = outcome(&world, &frame);
                    assert_eq!(expected.reason, Reason::SecondChance);
                    let run = programs.run("steer", &frame, 1).unwrap();
                    assert_eq!(
                        (run.action, run.frame),
                        (expected.action, expected.frame),
                        "IPv6 outside {outer}, inside {inner}, in {vlans:?}, to {next:?}"
                    );
                }
            }
        }
    });
}

#[test]
fn steer_does_with_a_case_whose_bytes_changed_what_the_host_does() {
    if !can_run() {
        return;
    }
    machine("changed").run(|| {
        for world in [
            World::new(),
            World::new().with_hops([Owner::Six, Owner::Tagged]),
        ] {
            let programs = Programs::load(&world).unwrap();
            let mut state = 0x5eed_u64;
            let mut next = |below: usize| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state % below as u64) as usize
            };
            for case in cases(&world) {
                for _ in 0..200 {
                    let mut frame = case.frame.clone();
                    for _ in 0..=next(3) {
                        let at = next(frame.len().min(120));
                        frame[at] = if next(2) == 0 {
                            next(256) as u8
                        } else {
                            frame[at] ^ 1 << next(8)
                        };
                    }
                    let expected = outcome(&world, &frame);
                    let run = programs.run("steer", &frame, 1).unwrap();
                    assert_eq!(
                        (run.action, &run.frame),
                        (expected.action, &expected.frame),
                        "{}, {:?}: {frame:02x?}",
                        case.name,
                        expected.reason
                    );
                }
            }
        }
    });
}

/// A native program on a bond runs on its ports, and says that frames came in by these.
#[test]
fn frames_that_come_by_a_port_of_a_bond_are_steered_and_leave_by_the_bond() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    world.interface = OTHER_INTERFACE;
    for node in &mut world.nodes {
        node.interface = OTHER_INTERFACE;
    }
    let programs = Programs::load(&world).unwrap();
    let mut redirected = 0;
    for case in cases(&World::new()) {
        let expected = outcome(&world, &case.frame);
        let run = programs.run("steer", &case.frame, 1).unwrap();
        assert_eq!(
            (run.action, run.frame),
            (expected.action, expected.frame),
            "{}",
            case.name
        );
        redirected += usize::from(run.action == Action::Redirect);
    }
    assert!(redirected > 1, "nothing was forwarded");
}

/// What is no interface has no address, not even that of zeroes.
#[test]
fn a_frame_for_the_address_of_zeroes_is_for_another_machine() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let packet = Packet {
        to_mac: [0; 6],
        source_port: world.port_owned_by(CLIENT.into(), Owner::Udp),
        ..Packet::default()
    };
    let programs = Programs::load(&world).unwrap();
    let run = programs.run("steer", &packet.bytes(), 1).unwrap();
    assert_eq!(run.action, Action::Pass);
}

#[test]
fn a_vip_is_found_where_another_has_its_place_in_the_index() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let free = Packet {
        source_port: world.port_owned_by(CLIENT.into(), Owner::Own),
        ..Packet::default()
    };
    let steered = |world: &World, packet: &Packet| {
        let programs = Programs::load(world).unwrap();
        let before = programs.counters().unwrap();
        programs.run("steer", &packet.bytes(), 1).unwrap();
        let after = programs.counters().unwrap();
        let grown = before.iter().zip(&after).find(|(b, a)| b.1 != a.1);
        grown.unwrap().0.0
    };
    let key = |vip: Ipv4Addr, port: u16| VipKey4 {
        address: u32::from_ne_bytes(vip.octets()),
        service: service(port.to_be(), 6),
    };
    let candidates = (20..=255).flat_map(|last| {
        let vip = Ipv4Addr::new(198, 51, 100, last);
        (1..443).map(move |port| (vip, port))
    });
    let rivals = |(vip, port): &(Ipv4Addr, u16)| key(*vip, *port).slot() == key(*vip, 443).slot();
    let (vip, rival) = candidates.into_iter().find(rivals).unwrap();
    let mut packet = Packet {
        destination: vip.into(),
        ..free
    };
    assert_eq!(steered(&world, &packet), Reason::NotVip);
    let value = world.vips4[&key(VIP, 443)];
    for port in [443, rival] {
        world.vips4.insert(key(vip, port), value);
    }
    // Whichever has the slot, both are found; and a third port, which has another, is not.
    for port in [443, rival] {
        packet.destination_port = port;
        let reason = steered(&world, &packet);
        assert!(
            !matches!(reason, Reason::NotVip | Reason::NotTcp),
            "{port}: {reason:?}"
        );
    }
    packet.destination_port = 444;
    assert_eq!(steered(&world, &packet), Reason::NotVip);
}

#[test]
fn undoing_puts_each_frame_back_as_it_was() {
    if !can_run() {
        return;
    }
    if !undoing_object().exists() {
        skipped("no object that undoes (cargo xtask test builds it)");
        return;
    }
    let world = World::new();
    let programs = Programs::load_undoing(&world).unwrap();
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

/// The kernel takes the object for debugging too: it is compiled by other flags and has more in it.
#[test]
fn logging_each_packet_changes_nothing_else() {
    if !can_run() {
        return;
    }
    if !logging_object().exists() {
        skipped("no object that logs (cargo xtask test builds it)");
        return;
    }
    let world = World::new();
    let programs = Programs::load_logging(&world).unwrap();
    for case in cases(&world) {
        let run = programs.run("steer", &case.frame, 1).unwrap();
        assert_eq!(
            (run.action, run.frame),
            (case.expected.action, case.expected.frame),
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
    let programs = Programs::load(&World::new()).unwrap();
    let counts = programs.verified_instructions().unwrap();
    println!("verified instructions: {counts:?}");
    // The kernel's limit is a million. The six kinds of frames have a function each, which it walks
    // through for each length of the link-layer header.
    assert!(
        counts
            .iter()
            .all(|(_, count)| *count > 0 && *count < 80_000),
        "{counts:?}"
    );
}
