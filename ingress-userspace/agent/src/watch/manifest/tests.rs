//! Forms of files that people have, whole and broken.

use proptest::prelude::*;

use super::*;

const SERVICE: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\nspec: {ports: [{port: 80}]}\n";

fn names(reading: &Reading) -> Vec<String> {
    reading
        .objects
        .iter()
        .map(|found| format!("{} {}", found.identity.kind, found.identity.name))
        .collect()
}

fn service(name: &str) -> String {
    SERVICE.replace("NAME", name)
}

#[test]
fn documents_of_one_file_are_read_apart() {
    let text = format!(
        "# head\n---\n{}---\n\n# nothing\n---\n{}...\n{}",
        service("a"),
        service("b"),
        service("c")
    );
    let reading = read(&text, false);
    assert_eq!(
        names(&reading),
        [
            "Service default/a",
            "Service default/b",
            "Service default/c"
        ]
    );
    let lines: Vec<_> = reading.objects.iter().map(|found| found.line).collect();
    assert_eq!(lines, [3, 11, 16]);
    assert_eq!(reading.faults, []);
}

#[test]
fn a_broken_document_harms_no_other_and_its_line_is_named() {
    let text = format!("{}---\nkind: [\n---\n{}", service("a"), service("b"));
    let reading = read(&text, false);
    assert_eq!(names(&reading), ["Service default/a", "Service default/b"]);
    assert_eq!(reading.faults.len(), 1, "{:?}", reading.faults);
    assert!(
        (6..=8).contains(&reading.faults[0].line),
        "{:?}",
        reading.faults
    );
}

#[test]
fn a_field_of_the_wrong_type_is_named_with_its_line_and_object() {
    let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  ports:\n  - port: eighty\n";
    let reading = read(&format!("---\n{text}"), false);
    assert_eq!(reading.objects.len(), 0);
    assert_eq!(reading.faults[0].line, 8, "{:?}", reading.faults);
    assert_eq!(reading.faults[0].object, "Service default/web");
}

#[test]
fn lists_give_their_items_and_one_bad_item_harms_no_other() {
    let text = r#"
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: a}}
- {apiVersion: v1, kind: Service, metadata: {name: bad}, spec: {ports: 7}}
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}
- {apiVersion: v1, kind: Service, metadata: {name: b, namespace: shop}}
"#;
    let reading = read(text, false);
    assert_eq!(names(&reading), ["Service default/a", "Service shop/b"]);
    assert_eq!(reading.faults[0].object, "Service default/bad");
    assert_eq!(
        reading.skipped,
        [("apps/v1/Deployment".to_owned(), 1)].into()
    );
}

#[test]
fn typed_lists_need_no_kind_on_their_items() {
    let text = "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: a}\n";
    assert_eq!(names(&read(text, false)), ["Service default/a"]);
}

#[test]
fn json_files_may_hold_several_values() {
    let one = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}}"#;
    let reading = read(
        &format!("{one}\n\t{}\n{{", one.replace("\"a\"", "\"b\"")),
        true,
    );
    assert_eq!(names(&reading), ["Service default/a", "Service default/b"]);
    assert_eq!(reading.faults.len(), 1);
    assert_eq!(reading.faults[0].line, 3);
}

#[test]
fn legacy_ingress_has_the_form_of_v1() {
    for version in ["extensions/v1beta1", "networking.k8s.io/v1beta1"] {
        let text = format!(
            "apiVersion: {version}\nkind: Ingress\nmetadata: {{name: old, creationTimestamp: null}}\nspec:\n  backend: {{serviceName: fallback, servicePort: http}}\n  rules:\n  - host: foo.bar.com\n    http:\n      paths:\n      - path: /a\n        backend: {{serviceName: s1, servicePort: 80}}\n      - backend: {{serviceName: s2, servicePort: \"8080\"}}\n"
        );
        let reading = read(&text, false);
        assert_eq!(reading.faults, [], "{version}");
        let Object::Ingress(ingress) = &reading.objects[0].object else {
            panic!("{reading:?}")
        };
        let spec = ingress.spec.clone().unwrap();
        let port = |backend: k8s_openapi::api::networking::v1::IngressBackend| {
            backend.service.unwrap().port.unwrap()
        };
        assert_eq!(
            port(spec.default_backend.unwrap()).name.as_deref(),
            Some("http")
        );
        let paths = spec.rules.unwrap()[0].http.clone().unwrap().paths;
        assert_eq!(paths[0].path_type, "ImplementationSpecific");
        assert_eq!(port(paths[0].backend.clone()).number, Some(80));
        assert_eq!(port(paths[1].backend.clone()).number, Some(8080));
    }
}

#[test]
fn string_data_wins_and_base64_may_be_wrapped() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: kubernetes.io/tls\ndata:\n  tls.crt: |\n    aGVs\n    bG8=\n  tls.key: b2xk\nstringData: {tls.key: new}\n";
    let reading = read(text, false);
    assert_eq!(reading.faults, []);
    let Object::Secret(secret) = &reading.objects[0].object else {
        panic!("{reading:?}")
    };
    let data = secret.data.clone().unwrap();
    assert_eq!(data["tls.crt"].0, b"hello");
    assert_eq!(data["tls.key"].0, b"new");
}

#[test]
fn faults_of_a_secret_never_quote_it() {
    for text in [
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {tls.key: \"hunter2 is not base64\"}\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: hunter2\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {tls.key: [hunter2]}\n",
    ] {
        let reading = read(text, false);
        assert_eq!(reading.objects.len(), 0, "{text}");
        assert_eq!(reading.faults.len(), 1, "{text}");
        assert!(
            !reading.faults[0].message.contains("hunter2"),
            "{:?}",
            reading.faults
        );
    }
}

#[test]
fn no_prefix_of_a_file_is_a_panic_and_good_documents_before_the_cut_stay() {
    let text = format!("{}---\n{}", service("a"), service("b"));
    for cut in 0..text.len() {
        let reading = read(&text[..cut], false);
        // A cut within the mark itself leaves a line that is no YAML.
        if cut >= service("a").len() + "---".len() {
            assert_eq!(
                reading
                    .objects
                    .first()
                    .map(|found| found.identity.name.name.as_str()),
                Some("a"),
                "{cut}"
            );
        }
    }
}

#[test]
fn nesting_and_aliases_without_end_are_faults() {
    let laughs = (1..40).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
        let before = level - 1;
        format!("{text}a{level}: &a{level} [*a{before}, *a{before}, *a{before}, *a{before}, *a{before}]\n")
    });
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        laughs,
    ] {
        let reading = read(&text, false);
        assert_eq!(
            (reading.objects.len(), reading.faults.len()),
            (0, 1),
            "{}",
            &text[..20]
        );
    }
    assert_eq!(read(&"[".repeat(100_000), true).faults.len(), 1);
}

#[test]
fn aliases_make_a_document_a_few_times_as_long_as_it_is_and_no_more() {
    let ingress = |name: &str, labels: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, labels: {labels}}}\n"
        )
    };
    let shared = format!(
        "x: &x {{a: b}}\nl: [{}]\n{}",
        "*x, ".repeat(50),
        ingress("few", "*x")
    );
    assert_eq!(read(&shared, false).faults, []);
    let doubled = (1..14).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
        let before = level - 1;
        format!("{text}a{level}: &a{level} [*a{before}, *a{before}]\n")
    });
    let long = format!(
        "x: &x {}\nl: [{}]\n",
        "x".repeat(100_000),
        "*x, ".repeat(90)
    );
    for text in [doubled, long] {
        let reading = read(&(text + &ingress("many", "{}")), false);
        let faults: Vec<_> = reading
            .faults
            .iter()
            .map(|fault| &fault.message[..8])
            .collect();
        assert_eq!((reading.objects.len(), faults), (0, vec!["not YAML"]));
    }
}

proptest! {
    #[test]
    fn no_text_is_a_panic(
        text in "(apiVersion|kind|metadata|name|spec|items|data|v1|List|Secret|Ingress|---|\\.\\.\\.|[-:?{}\\[\\],&*#|>!%'\"\\\\ \n\t]|.){0,60}"
    ) {
        for json in [false, true] {
            let reading = read(&text, json);
            let lines = u64::try_from(text.split('\n').count()).unwrap();
            prop_assert!(reading.faults.iter().all(|fault| (1..=lines + 1).contains(&fault.line)), "{:?}", reading.faults);
        }
    }
}
