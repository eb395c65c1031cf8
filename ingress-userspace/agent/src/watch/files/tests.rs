//! A folder that is edited, broken, mended and swapped.

use std::os::unix::fs::symlink;

use super::*;

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n")
}

struct Folder {
    dir: tempfile::TempDir,
    files: Files,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path().to_owned());
        Self { dir, files }
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Names of the Services, and the problems with the folder's own path cut off.
    fn scan(&mut self) -> (Vec<String>, Vec<String>) {
        self.files.scan().unwrap();
        let index = self.files.index();
        let root = format!("{}/", self.dir.path().display());
        let names = index
            .objects
            .services
            .iter()
            .map(|(name, _)| name.name.clone())
            .collect();
        (
            names,
            index
                .problems
                .iter()
                .map(|problem| problem.to_string().replace(&root, ""))
                .collect(),
        )
    }
}

#[test]
fn folder_is_read_recursively_and_only_manifests_count() {
    let mut folder = Folder::new();
    for (path, name) in [
        ("a.yaml", "a"),
        ("x/b.yml", "b"),
        ("x/y/c.json", "c"),
        ("d.txt", "d"),
        (".e.yaml", "e"),
        (".git/f.yaml", "f"),
    ] {
        let text = match path.ends_with("json") {
            true => format!(
                r#"{{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "{name}"}}}}"#
            ),
            false => service(name),
        };
        folder.write(path, &text);
    }
    assert_eq!(
        folder.scan(),
        (vec!["a".into(), "b".into(), "c".into()], vec![])
    );
}

#[test]
fn broken_file_keeps_its_last_good_objects_and_is_named() {
    let mut folder = Folder::new();
    folder.write("a.yaml", &service("a"));
    folder.write("b.yaml", &service("b"));
    assert_eq!(folder.scan().0, ["a", "b"]);
    for broken in [
        "apiVersion: v1\nkind: [",
        "{",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: 5",
        "",
    ] {
        folder.write("a.yaml", broken);
        let (names, problems) = folder.scan();
        assert_eq!(names, ["a", "b"], "{broken}");
        assert_eq!(problems.len(), 1, "{broken}: {problems:?}");
        assert!(problems[0].starts_with("a.yaml"), "{problems:?}");
        assert!(problems[0].contains("in force"), "{problems:?}");
    }
    folder.write("a.yaml", &service("a2"));
    assert_eq!(folder.scan(), (vec!["a2".into(), "b".into()], vec![]));
}

#[test]
fn good_documents_of_a_broken_file_are_taken() {
    let mut folder = Folder::new();
    folder.write(
        "a.yaml",
        &format!("{}---\n{}", service("old"), service("same")),
    );
    folder.scan();
    folder.write(
        "a.yaml",
        &format!("{}---\n{}---\nkind: [\n", service("new"), service("same")),
    );
    assert_eq!(folder.scan().0, ["new", "old", "same"]);
}

#[test]
fn deleted_file_takes_its_objects_away() {
    let mut folder = Folder::new();
    folder.write("x/a.yaml", &service("a"));
    folder.write("b.yaml", &service("b"));
    folder.scan();
    fs::remove_file(folder.dir.path().join("x/a.yaml")).unwrap();
    assert_eq!(folder.scan(), (vec!["b".into()], vec![]));
}

#[test]
fn the_same_object_in_two_files_is_the_first_by_path() {
    let mut folder = Folder::new();
    folder.write(
        "b.yaml",
        &format!("{}---\n{}", service("other"), service("a")),
    );
    folder.write("a.yaml", &service("a"));
    let (names, problems) = folder.scan();
    assert_eq!(names, ["a", "other"]);
    assert_eq!(
        problems,
        ["b.yaml:5: Service default/a: is also in ".to_owned()
            + &format!("{}/a.yaml:1, which wins", folder.dir.path().display())
                .replace(&format!("{}/", folder.dir.path().display()), "")]
    );
}

#[test]
fn swap_of_a_config_map_mount_is_one_change() {
    let mut folder = Folder::new();
    let root = folder.dir.path().to_owned();
    folder.write("..2026_1/a.yaml", &service("one"));
    folder.write("..2026_2/a.yaml", &service("two"));
    symlink("..2026_1", root.join("..data")).unwrap();
    symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    assert_eq!(folder.scan(), (vec!["one".into()], vec![]));
    symlink("..2026_2", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    assert_eq!(folder.scan(), (vec!["two".into()], vec![]));
}

#[test]
fn loops_of_links_end() {
    let mut folder = Folder::new();
    folder.write("x/a.yaml", &service("a"));
    symlink("..", folder.dir.path().join("x/up")).unwrap();
    symlink("nowhere.yaml", folder.dir.path().join("b.yaml")).unwrap();
    assert_eq!(folder.scan(), (vec!["a".into()], vec![]));
}

#[test]
fn a_folder_that_vanishes_is_an_error_and_everything_stays() {
    let mut folder = Folder::new();
    folder.write("a.yaml", &service("a"));
    folder.scan();
    fs::remove_dir_all(folder.dir.path()).unwrap();
    assert!(folder.files.scan().is_err());
    assert_eq!(folder.files.index().objects.services.iter().count(), 1);
}

#[test]
fn rewrite_within_one_tick_and_of_one_size_is_seen() {
    let mut folder = Folder::new();
    for name in ["a", "b", "c", "d"] {
        folder.write("a.yaml", &service(name));
        assert_eq!(folder.scan().0, [name]);
    }
}

#[test]
fn a_file_that_is_touched_is_no_change() {
    let mut folder = Folder::new();
    folder.write("a.yaml", &service("a"));
    assert!(folder.files.scan().unwrap());
    folder.write("a.yaml", &service("a"));
    assert!(!folder.files.scan().unwrap());
}

#[test]
fn a_file_that_cannot_be_read_keeps_its_objects_until_it_can() {
    let mut folder = Folder::new();
    folder.write("a.yaml", &service("a"));
    folder.scan();
    let path = folder.dir.path().join("a.yaml");
    fs::write(&path, b"\xff\xfe").unwrap();
    let (names, problems) = folder.scan();
    assert_eq!(
        (names.len(), problems),
        (
            1,
            vec![
                "a.yaml: cannot be read: not UTF-8; its last good version stays in force"
                    .to_owned()
            ]
        )
    );
    folder.write("a.yaml", &service("a"));
    assert_eq!(folder.scan(), (vec!["a".into()], vec![]));
}
