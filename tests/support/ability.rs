//! What this machine cannot do, said honestly.

/// Says that a test did not run here. `.ci/test` counts these lines.
pub(crate) fn skip(test: &str, why: &str) {
    println!("SKIP {test}: {why}");
}

/// Why this process cannot mount, if it cannot.
pub(crate) fn cannot_mount() -> Option<&'static str> {
    if !std::path::Path::new("/dev/fuse").exists() {
        return Some("no /dev/fuse");
    }
    // Passthrough and dropping the page cache need it too; users' mounts are covered by doctor.
    (!nix::unistd::geteuid().is_root()).then_some("needs root")
}
