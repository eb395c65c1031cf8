//! `forebay run --manifests` as a user meets it: files, curl, reload, errors, signals.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panics")]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ingress_lab::{
    api_server,
    client::{self, Answer, curl, start_curl},
    eventually,
    forebay::{Forebay, Launch, binary, run_to_end},
    lab::{secret_yaml, write_services},
    origin::{Echo, Origin},
    skipped,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A folder of manifests whose Services `s1` and `s2` have one pod each.
struct Folder {
    folder: TempDir,
    s1: Origin,
    s2: Origin,
}

impl Folder {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let (s1, s2) = (
            Origin::start("s1-a", any_port).unwrap(),
            Origin::start("s2-a", any_port).unwrap(),
        );
        write_services(
            folder.path(),
            &[("s1", "s1-a", s1.address()), ("s2", "s2-a", s2.address())],
        )
        .unwrap();
        Self { folder, s1, s2 }
    }

    fn with_example(name: &str) -> Self {
        let this = Self::new();
        this.write("example.yaml", &fs::read_to_string(example(name)).unwrap());
        this
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    fn start(&self) -> Forebay {
        Launch::manifests(self.path()).start().unwrap()
    }
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/examples")
        .join(name)
}

fn ingress(name: &str, host: &str, service: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}}}\nspec:\n  rules:\n  - host: {host}\n    \
         http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}]}}\n"
    )
}

fn get(forebay: &Forebay, host: &str, path: &str) -> Answer {
    curl(&[
        "-H".to_owned(),
        format!("Host: {host}"),
        format!("http://{}{path}", forebay.http_addr()),
    ])
    .unwrap()
}

/// Pod that answered and the path it saw.
fn pod_and_path(answer: &Answer) -> (String, String) {
    let echo: Echo = answer.json().unwrap();
    (echo.pod, echo.path)
}

/// Waits for a change to show; the issue allows one second.
#[track_caller]
fn within_a_second(what: &str, holds: impl FnMut() -> bool) {
    let start = Instant::now();
    eventually(what, holds);
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{what}: took {:?}",
        start.elapsed()
    );
}

#[test]
fn first_example_answers_alike_in_legacy_and_current_form() {
    for name in ["legacy/fanout.yaml", "v1/fanout.yaml"] {
        let folder = Folder::with_example(name);
        let forebay = folder.start();
        for (host, path, pod, seen) in [
            ("foo.bar.com", "/foos1", "s1-a", "/"),
            ("foo.bar.com", "/foos1/deeper?q=1", "s1-a", "/?q=1"),
            ("foo.bar.com", "/bars2", "s2-a", "/"),
            ("FOO.bar.com:80", "/bars2", "s2-a", "/"),
            ("bar.foo.com", "/", "s2-a", "/"),
            ("bar.foo.com", "/any/path", "s2-a", "/any/path"),
        ] {
            let answer = get(&forebay, host, path);
            assert_eq!(
                answer.status,
                200,
                "{name}: {host}{path}: {}",
                answer.text()
            );
            assert_eq!(
                pod_and_path(&answer),
                (pod.to_owned(), seen.to_owned()),
                "{name}: {host}{path}"
            );
        }
        for (host, path) in [
            ("foo.bar.com", "/"),
            ("foo.bar.com", "/else"),
            ("unknown.com", "/foos1"),
        ] {
            assert_eq!(
                get(&forebay, host, path).status,
                404,
                "{name}: {host}{path}"
            );
        }
    }
}

#[test]
fn second_example_serves_the_users_own_certificate_and_redirects_http() {
    for name in ["legacy/tls.yaml", "v1/tls.yaml"] {
        let folder = Folder::with_example(name);
        folder.write("kube-book-secret.yaml", &make_secret(folder.path()));
        let forebay = folder.start();

        let redirect = get(&forebay, "kube-book.com", "/some/page?q=1");
        assert_eq!(redirect.status, 308, "{name}");
        assert_eq!(
            redirect.header("location"),
            "https://kube-book.com/some/page?q=1",
            "{name}"
        );

        let port = forebay.https_addr().port();
        let ca = folder.path().join("tls.crt").display().to_string();
        let resolve = format!("kube-book.com:{port}:127.0.0.1");
        for (flag, version) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")] {
            let url = format!("https://kube-book.com:{port}/some/page?q=1");
            let answer = curl(&[flag, "--cacert", &ca, "--resolve", &resolve, &url]).unwrap();
            assert_eq!(
                (answer.status, answer.version.as_str()),
                (200, version),
                "{name}"
            );
            let echo: Echo = answer.json().unwrap();
            assert_eq!(
                (echo.pod.as_str(), echo.path.as_str()),
                ("s1-a", "/some/page?q=1"),
                "{name}"
            );
            assert_eq!(echo.headers["x-forwarded-proto"], "https", "{name}");
            assert_eq!(echo.headers["x-forwarded-for"], "127.0.0.1", "{name}");
        }
        let metrics = forebay.ask("/metrics").unwrap().1;
        let expiry =
            "forebay_certificate_expiry_timestamp_seconds{secret=\"default/kube-book-secret\"} ";
        let expiry = metrics.lines().find_map(|line| line.strip_prefix(expiry));
        let left = Duration::from_secs(expiry.expect(&metrics).parse().unwrap())
            - SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(
            (364..=365).contains(&(left.as_secs() / 86_400)),
            "{name}: {left:?} of 365 days"
        );

        // Another name gets the default certificate, which no authority signed.
        let (resolve, url) = (
            format!("other.com:{port}:127.0.0.1"),
            format!("https://other.com:{port}/"),
        );
        assert!(
            curl(&["--cacert", &ca, "--resolve", &resolve, &url]).is_err(),
            "{name}"
        );
        let other = curl(&["--insecure", "--resolve", &resolve, &url]).unwrap();
        assert_eq!(other.status, 404, "{name}");
    }
}

/// Makes the Secret by the commands of the examples' README; without kubectl, in the form it
/// prints.
fn make_secret(folder: &Path) -> String {
    let openssl = Command::new("openssl")
        .args(
            "req -x509 -nodes -days 365 -newkey rsa:2048 -keyout tls.key -out tls.crt -subj /CN=kube-book.com"
                .split(' '),
        )
        .current_dir(folder)
        .output()
        .expect("openssl is installed");
    assert!(
        openssl.status.success(),
        "{}",
        String::from_utf8_lossy(&openssl.stderr)
    );
    let Ok(binaries) = api_server::binaries() else {
        let part = |name| fs::read_to_string(folder.join(name)).unwrap();
        return secret_yaml("kube-book-secret", &part("tls.crt"), &part("tls.key"));
    };
    let made = Command::new(binaries.join("kubectl"))
        .args("create secret tls kube-book-secret --cert=tls.crt --key=tls.key --dry-run=client -o yaml".split(' '))
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    String::from_utf8(made.stdout).unwrap()
}

#[test]
fn an_ingress_that_restricts_access_answers_503_until_it_no_longer_does() {
    let folder = Folder::new();
    let annotated = |annotation: &str| {
        ingress("shop", "shop.example.com", "s1").replace(
            "{name: shop}",
            &format!("{{name: shop, annotations: {{nginx.ingress.kubernetes.io/{annotation}}}}}"),
        )
    };
    folder.write("other.yaml", &ingress("other", "other.example.com", "s2"));
    folder.write(
        "shop.yaml",
        &annotated("auth-url: 'https://auth.example.com', nginx.ingress.kubernetes.io/force-ssl-redirect: 'true'"),
    );
    let forebay = folder.start();
    for path in ["/", "/any/path"] {
        let answer = get(&forebay, "shop.example.com", path);
        assert_eq!(answer.status, 503, "{path}: before any redirect");
    }
    assert_eq!(folder.s1.requests(), 0);
    assert_eq!(get(&forebay, "other.example.com", "/").status, 200);

    let status = forebay.status().unwrap();
    assert_eq!(status["denied_routes"], 1);
    let problem = &status["problems"][0];
    assert_eq!(
        (
            &problem["severity"],
            &problem["object"],
            &problem["message"]
        ),
        (
            &"error".into(),
            &"Ingress default/shop".into(),
            &"external authentication is not supported; requests get 503".into()
        ),
        "{status}"
    );
    let routes = forebay.routes().unwrap().to_string();
    assert!(
        routes.contains("auth-url: external authentication is not supported"),
        "{routes}"
    );
    let metric = |forebay: &Forebay| {
        let metrics = forebay.ask("/metrics").unwrap().1;
        let line = metrics
            .lines()
            .find(|line| line.starts_with("forebay_denied_routes "))
            .map(str::to_owned);
        line.unwrap_or(metrics)
    };
    assert_eq!(metric(&forebay), "forebay_denied_routes 1");
    assert!(
        forebay.log_text().contains("requests get 503"),
        "{}",
        forebay.log_text()
    );

    // What cert-manager writes on the Ingresses of its challenges lets everyone in.
    folder.write(
        "shop.yaml",
        &annotated("whitelist-source-range: '0.0.0.0/0,::/0'"),
    );
    within_a_second("the Ingress is served", || {
        get(&forebay, "shop.example.com", "/").status == 200
    });
    assert_eq!(metric(&forebay), "forebay_denied_routes 0");

    folder.write(
        "shop.yaml",
        &annotated("whitelist-source-range: 192.0.2.0/24"),
    );
    within_a_second("the Ingress is denied", || {
        get(&forebay, "shop.example.com", "/").status == 503
    });
}

#[test]
fn added_changed_and_deleted_files_show_within_a_second() {
    let folder = Folder::new();
    let forebay = folder.start();
    assert_eq!(get(&forebay, "new.example.com", "/").status, 404);

    folder.write("new.yaml", &ingress("new", "new.example.com", "s1"));
    within_a_second("the added file answers", || {
        get(&forebay, "new.example.com", "/").status == 200
    });
    assert_eq!(
        pod_and_path(&get(&forebay, "new.example.com", "/")).0,
        "s1-a"
    );

    folder.write("new.yaml", &ingress("new", "new.example.com", "s2"));
    within_a_second("the change answers", || {
        pod_and_path(&get(&forebay, "new.example.com", "/")).0 == "s2-a"
    });

    // As editors and `kubectl` pipelines do it: a new file over the old one, in a new folder.
    fs::create_dir(folder.path().join("team")).unwrap();
    fs::write(
        folder.path().join("team/draft"),
        ingress("team", "team.example.com", "s1"),
    )
    .unwrap();
    fs::rename(
        folder.path().join("team/draft"),
        folder.path().join("team/ingress.yaml"),
    )
    .unwrap();
    within_a_second("the file in a new folder answers", || {
        get(&forebay, "team.example.com", "/").status == 200
    });

    fs::remove_file(folder.path().join("new.yaml")).unwrap();
    within_a_second("the deleted file's host is gone", || {
        get(&forebay, "new.example.com", "/").status == 404
    });
    assert_eq!(get(&forebay, "team.example.com", "/").status, 200);
}

#[test]
fn broken_file_keeps_its_last_good_state_and_is_named() {
    let folder = Folder::new();
    folder.write("shop.yaml", &ingress("shop", "shop.example.com", "s1"));
    let forebay = folder.start();
    let named = |forebay: &Forebay| {
        let problems = forebay.status().unwrap()["problems"].to_string();
        problems.contains("shop.yaml")
    };
    assert!(!named(&forebay), "{}", forebay.status().unwrap());

    folder.write(
        "shop.yaml",
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: sh",
    );
    within_a_second("/status names the file", || named(&forebay));
    assert_eq!(get(&forebay, "shop.example.com", "/").status, 200);
    let warned = forebay.log().iter().any(|line| {
        matches!(line["level"].as_str(), Some("WARN" | "ERROR"))
            && line.to_string().contains("shop.yaml")
    });
    assert!(warned, "{}", forebay.log_text());

    // The broken file harms no other file.
    folder.write("other.yaml", &ingress("other", "other.example.com", "s2"));
    within_a_second("another file is taken", || {
        get(&forebay, "other.example.com", "/").status == 200
    });
    assert_eq!(get(&forebay, "shop.example.com", "/").status, 200);

    folder.write("shop.yaml", &ingress("shop", "shop.example.com", "s2"));
    within_a_second("the mended file is taken", || {
        pod_and_path(&get(&forebay, "shop.example.com", "/")).0 == "s2-a"
    });
    within_a_second("/status forgets it", || !named(&forebay));
}

#[test]
fn an_external_name_is_looked_up_and_served() {
    let folder = Folder::new();
    let external = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: out}}\nspec: {{type: ExternalName, \
             externalName: {name}, ports: [{{port: 80, targetPort: {}}}]}}\n",
            folder.s1.address().port()
        )
    };
    let rule = ingress("out", "out.example", "out");
    // RFC 6761: there is no such name.
    folder.write(
        "out.yaml",
        &format!("{rule}{}", external("nothing.invalid")),
    );
    let forebay = folder.start();
    eventually("the name is not found", || {
        let status = forebay.status().unwrap();
        status["problems"].to_string().contains("nothing.invalid")
    });
    assert_eq!(get(&forebay, "out.example", "/").status, 503);
    folder.write("out.yaml", &format!("{rule}{}", external("localhost")));
    eventually("the pod behind the name answers", || {
        get(&forebay, "out.example", "/").status == 200
    });
    assert_eq!(
        pod_and_path(&get(&forebay, "out.example", "/a")),
        ("s1-a".to_owned(), "/a".to_owned())
    );
    assert_eq!(forebay.status().unwrap()["problems"].to_string(), "[]");
}

#[test]
fn reload_loses_no_request() {
    let folder = Folder::new();
    folder.write("shop.yaml", &ingress("shop", "shop.example.com", "s1"));
    let forebay = folder.start();
    let url = format!("http://{}/", forebay.http_addr());
    let load = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            ingress_lab::client::wrk(
                None,
                8,
                Duration::from_secs(2),
                &["Host: shop.example.com"],
                &url,
            )
            .unwrap()
        });
        for round in 0.. {
            if load.is_finished() {
                break;
            }
            let service = if round % 2 == 0 { "s2" } else { "s1" };
            folder.write("shop.yaml", &ingress("shop", "shop.example.com", service));
            folder.write(
                "extra.yaml",
                &ingress("extra", &format!("extra{round}.example.com"), service),
            );
            let extra = format!("extra{round}.example.com");
            eventually("the new host answers", || {
                get(&forebay, &extra, "/").status == 200
            });
        }
        load.join().unwrap()
    });
    assert_eq!((load.wrong, load.failed), (0, 0), "{load:?}");
    assert!(load.requests > 100, "{load:?}");
    assert!(folder.s1.requests() > 0 && folder.s2.requests() > 0);
}

#[test]
fn wrong_flags_end_with_status_2_and_one_clear_line() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy_addr = busy.local_addr().unwrap().to_string();
    let folder = Folder::new();
    let folder = folder.path().to_str().unwrap();
    for (args, named) in [
        (&["run", "--no-such-flag"][..], "--no-such-flag"),
        (
            &["run", "--http", "localhost", "--manifests", folder],
            "localhost",
        ),
        (
            &["run", "--http", "127.0.0.1:99999", "--manifests", folder],
            "127.0.0.1:99999",
        ),
        (&["run", "--workers", "many", "--manifests", folder], "many"),
        (
            &["run", "--manifests", "/no/such/folder"],
            "/no/such/folder",
        ),
        (
            &[
                "run",
                "--manifests",
                folder,
                "--http",
                &busy_addr,
                "--https",
                "127.0.0.1:0",
            ],
            &busy_addr,
        ),
        (
            &[
                "run",
                "--manifests",
                folder,
                "--http",
                "127.0.0.1:0",
                "--https",
                "127.0.0.1:0",
                "--metrics",
                &busy_addr,
            ],
            &busy_addr,
        ),
    ] {
        let output = run_to_end(args).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        let errors: Vec<_> = stderr
            .lines()
            .filter(|line| line.starts_with("forebay: "))
            .collect();
        assert!(
            matches!(errors[..], [line] if line.contains(named)),
            "{args:?}: {stderr}"
        );
    }
}

#[test]
fn help_names_every_flag() {
    let output = run_to_end(&["run", "--help"]).unwrap();
    assert!(output.status.success());
    let help = String::from_utf8_lossy(&output.stdout);
    for flag in [
        "--manifests",
        "--kubeconfig",
        "--http",
        "--https",
        "--admin-socket",
        "--metrics",
        "--ingress-class",
        "--workers",
        "--log-format",
        "--watch-ingress-without-class",
        "--shutdown-grace",
        "--shutdown-delay",
        "--vip",
        "--xdp-interface",
        "--xdp-mode",
        "--node",
        "--node-name",
        "--forward",
        "--hash-seed",
        "--pin-dir",
    ] {
        assert!(
            help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}[")),
            "{flag}: {help}"
        );
    }
}

#[test]
fn sigterm_lets_requests_in_flight_finish_and_refuses_new_ones() {
    let folder = Folder::new();
    folder.write("shop.yaml", &ingress("shop", "shop.example.com", "s1"));
    // Without a lame-duck phase: while it lasts, new connections are served too.
    let mut forebay = Launch::manifests(folder.path())
        .args(&["--lame-duck", "0s"])
        .start()
        .unwrap();
    let http = forebay.http_addr();
    let held = [
        "-H",
        "Host: shop.example.com",
        &format!("http://{http}/hold"),
    ]
    .map(str::to_owned);
    let held = start_curl(None, &held).unwrap();
    eventually("the request is at the pod", || folder.s1.held() == 1);

    forebay.terminate().unwrap();
    eventually("new connections are refused", || {
        TcpStream::connect(http).is_err()
    });
    folder.s1.release();
    let answer = held.answer().unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), "close");
    assert_eq!(forebay.wait().unwrap().code(), Some(0));
}

#[test]
fn connections_that_wait_to_be_accepted_are_served_at_shutdown() {
    let folder = Folder::new();
    folder.write("shop.yaml", &ingress("shop", "shop.example.com", "s1"));
    let mut forebay = folder.start();
    // While the process stands still, the kernel alone takes connections.
    let signal =
        |signal| kill_process(Pid::from_raw(forebay.pid().cast_signed()).unwrap(), signal).unwrap();
    signal(Signal::STOP);
    let connections: Vec<_> = (0..50)
        .map(|_| {
            let mut connection = TcpStream::connect(forebay.http_addr()).unwrap();
            connection
                .write_all(b"GET / HTTP/1.1\r\nhost: shop.example.com\r\n\r\n")
                .unwrap();
            connection
        })
        .collect();
    forebay.terminate().unwrap();
    signal(Signal::CONT);
    for mut connection in connections {
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).unwrap();
        assert!(
            answer.starts_with(b"HTTP/1.1 200 "),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert_eq!(forebay.wait().unwrap().code(), Some(0));
}

#[test]
fn shutdown_waits_no_longer_than_its_grace() {
    let folder = Folder::new();
    folder.write("shop.yaml", &ingress("shop", "shop.example.com", "s1"));
    let mut forebay = Launch::manifests(folder.path())
        .args(&["--shutdown-grace", "300ms"])
        .start()
        .unwrap();
    let url = format!("http://{}/hold", forebay.http_addr());
    let held = start_curl(None, &["-H", "Host: shop.example.com", &url]).unwrap();
    eventually("the request is at the pod", || folder.s1.held() == 1);
    let start = Instant::now();
    forebay.terminate().unwrap();
    forebay.wait().unwrap();
    assert!(
        start.elapsed() >= Duration::from_millis(300),
        "took {:?}",
        start.elapsed()
    );
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "took {:?}",
        start.elapsed()
    );
    assert!(held.answer().is_err());
}

#[test]
fn environment_says_what_flags_say() {
    let folder = Folder::new();
    folder.write("shop.yaml", &ingress("shop", "shop.example.com", "s1"));
    let forebay = Launch::new::<&str>(&[])
        .env("FOREBAY_MANIFESTS", folder.path().to_str().unwrap())
        .env("FOREBAY_HTTP", "127.0.0.1:0")
        .env("FOREBAY_HTTPS", "127.0.0.1:0")
        .env("FOREBAY_METRICS", "127.0.0.1:0")
        .start()
        .unwrap();
    assert_eq!(get(&forebay, "shop.example.com", "/").status, 200);
    let scrape = |path| client::get(None, forebay.metrics_addr(), path).unwrap().0;
    assert_eq!((scrape("/metrics"), scrape("/status")), (200, 404));
}

#[test]
fn serves_without_privilege() {
    if !rustix::process::geteuid().is_root() {
        return skipped("it runs unprivileged already; root is needed to drop privilege");
    }
    let folder = Folder::new();
    folder.write("shop.yaml", &ingress("shop", "shop.example.com", "s1"));
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Where the build stands may be closed to others.
    let open = TempDir::new().unwrap();
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = open.path().join("forebay");
    fs::copy(binary().unwrap(), &copy).unwrap();

    let setpriv = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--no-new-privs",
    ];
    let forebay = Launch::manifests(folder.path())
        .wrapped_by(&setpriv)
        .program(&copy)
        .start()
        .unwrap();
    assert_eq!(get(&forebay, "shop.example.com", "/").status, 200);
    let status = fs::read_to_string(format!("/proc/{}/status", forebay.pid())).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    assert_eq!(forebay.status().unwrap()["data_plane"]["mode"], "sockets");
}

#[test]
fn operators_can_ask_for_routes_status_and_metrics() {
    let folder = Folder::new();
    folder.write("shop.yaml", &ingress("shop", "shop.example.com", "s1"));
    let forebay = folder.start();
    get(&forebay, "shop.example.com", "/");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(forebay.ask(path).unwrap().0, 200, "{path}");
    }
    let routes = forebay.routes().unwrap();
    assert_eq!(routes[0]["host"], "shop.example.com");
    assert_eq!(routes[0]["ingress"], "default/shop");
    assert_eq!(routes[0]["backend"], "default/s1:80");
    assert_eq!(
        routes[0]["endpoints"][0]["address"],
        folder.s1.address().to_string()
    );
    let status = forebay.status().unwrap();
    assert_eq!(
        (&status["routes"], &status["source"]["kind"]),
        (&1.into(), &"folder".into())
    );
    assert!(forebay.ask("/metrics").unwrap().1.contains("# TYPE "));
}

/// Runs a command that asks `forebay`; gives its exit code and what it printed.
fn ask(forebay: &Forebay, args: &[&str]) -> (i32, String) {
    let socket = forebay.admin_socket();
    let output = run_to_end(&[args, &["--admin-socket", socket.to_str().unwrap()]].concat());
    let output = output.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(text).unwrap(),
    )
}

#[test]
fn commands_ask_a_running_forebay_and_say_so_if_there_is_none() {
    let folder = Folder::new();
    folder.write("shop.yaml", &ingress("shop", "shop.example.com", "s1"));
    folder.write("mail.yaml", &ingress("mail", "mail.example.com", "s2"));
    let mut forebay = folder.start();

    assert_eq!(ask(&forebay, &["status", "--ready"]), (0, "ready\n".into()));
    assert_eq!(ask(&forebay, &["status", "--healthy"]), (0, "ok\n".into()));
    let (code, status) = ask(&forebay, &["status"]);
    assert_eq!(code, 0, "{status}");
    for part in [": ready\n", "folder, in-sync", "sockets", "http 127.0.0.1:"] {
        assert!(status.contains(part), "{part}: {status}");
    }
    let (_, json) = ask(&forebay, &["status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["ready"], &json["routes"]), (&true.into(), &2.into()));
    let (_, routes) = ask(&forebay, &["routes"]);
    assert_eq!(routes.lines().count(), 3, "{routes}");
    let (_, routes) = ask(&forebay, &["routes", "--host", "mail.example.com"]);
    assert!(
        routes.lines().count() == 2 && routes.contains("default/s2:80"),
        "{routes}"
    );
    let (_, metrics) = ask(&forebay, &["metrics"]);
    assert!(metrics.contains("forebay_ready 1\n"), "{metrics}");

    forebay.kill();
    for args in [
        &["status"][..],
        &["status", "--ready"],
        &["routes"],
        &["metrics"],
    ] {
        let (code, error) = ask(&forebay, args);
        assert_eq!(code, 1, "{args:?}: {error}");
        assert!(
            error.contains("is it running? Name its socket with --admin-socket"),
            "{args:?}: {error}"
        );
    }
    // The dead socket is no obstacle.
    forebay.restart().unwrap();
    assert_eq!(ask(&forebay, &["status", "--ready"]).0, 0);
    forebay.terminate().unwrap();
    forebay.wait().unwrap();
    assert!(!forebay.admin_socket().exists(), "it left its socket");
}

#[test]
fn a_second_process_on_the_admin_socket_of_a_running_one_is_refused() {
    let folder = Folder::new();
    let forebay = folder.start();
    let args = ["run", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0"];
    let args = [&args[..], &["--manifests", folder.path().to_str().unwrap()]].concat();
    let (code, error) = ask(&forebay, &args);
    assert_eq!(code, 2, "{error}");
    assert!(
        error.contains("choose another path with --admin-socket"),
        "{error}"
    );
    assert_eq!(ask(&forebay, &["status", "--ready"]).0, 0);
}

#[test]
fn during_the_shutdown_delay_it_serves_and_is_not_ready() {
    let folder = Folder::new();
    folder.write("shop.yaml", &ingress("shop", "shop.example.com", "s1"));
    let mut forebay = Launch::manifests(folder.path())
        .args(&["--shutdown-delay", "10m", "--lame-duck", "0s"])
        .start()
        .unwrap();
    forebay.terminate().unwrap();
    eventually("it is not ready", || {
        ask(&forebay, &["status", "--ready"]) == (1, "not ready: shutting down\n".into())
    });
    let answer = get(&forebay, "shop.example.com", "/");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), "", "it must not close yet");
    assert_eq!(ask(&forebay, &["status", "--healthy"]).0, 0);
    // A second signal ends the delay.
    forebay.terminate().unwrap();
    assert_eq!(forebay.wait().unwrap().code(), Some(0));
}

#[test]
fn a_node_that_no_flag_lists_serves_ordinary_sockets_and_is_ready() {
    let folder = Folder::new();
    folder.write("shop.yaml", &ingress("shop", "shop.example.com", "s1"));
    let forebay = Launch::manifests(folder.path())
        .args(&["--vip", "198.51.100.10", "--xdp-interface", "eth0"])
        .args(&["--node-name", "n9", "--node", "n1=192.0.2.1,n2=192.0.2.2"])
        .start()
        .unwrap();
    assert_eq!(get(&forebay, "shop.example.com", "/").status, 200);
    let (_, status) = ask(&forebay, &["status"]);
    assert!(
        status.contains("Forebay 0.1.0 on n9: ready")
            && status.contains("no --node names this node, n9"),
        "{status}"
    );
}
