//! The configuration from the outside: every file of tests/config/bad with its complaints, good ones, includes, placeholders, and that no text panics.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use gateway::{
    config::{compile::Surroundings, complaint::Complaints, load::load_in},
    plan::Plan,
};

fn here() -> Surroundings {
    Surroundings { root: false, cores: NonZeroUsize::new(2).expect("two"), dir: "/srv".into() }
}

fn env(name: &str) -> Option<String> {
    match name {
        "GATEWAY_TOKEN" => Some("hush-hush".into()),
        "PORT_TEXT" => Some("8443".into()),
        _ => None,
    }
}

fn load(path: &Path) -> Result<Plan, Complaints> {
    load_in(path, &env, &here())
}

#[test]
fn every_configuration_that_we_ship_is_good() {
    let mut seen = 0;
    for path in toml_files(Path::new("conf")) {
        if let Err(complaints) = load(&path) {
            panic!("{complaints}");
        }
        seen += 1;
    }
    assert!(seen >= 1, "conf/ holds {seen} files");
}

fn toml_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
        .collect();
    files.sort();
    files
}
