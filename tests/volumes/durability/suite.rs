//! The POSIX suite on a volume that stages everything.

use super::{LOCAL, Staged};
use crate::posix::{passes_but, suite};
use crate::world::need_mount;

/// What may differ there, by parts of the names of tests: the time of change of a file moves when its
/// copy is made, perhaps just while a test looks (S62), and an open that truncates does so before the
/// kernel refuses it for a program that runs (S73).
const DIFFERS: [&str; 3] = [
    "unchanged_ctime",
    "rename::preserve_metadata_symlink",
    "open::etxtbsy",
];

// SEMANTICS S62, S72: without it a program that relies on POSIX would break where its files are staged.
#[test]
fn the_posix_suite_passes_where_files_are_staged() {
    need_mount!("the_posix_suite_passes_where_files_are_staged");
    if let Some(program) = suite("the_posix_suite_passes_where_files_are_staged") {
        let staged = Staged::new(&[LOCAL], &["-o", "suid"]);
        let volume = &staged.volume;
        passes_but(&program, &volume.world, &volume.mount, &DIFFERS);
        assert!(staged.number("staged_total") > 0);
        staged.wait_until_drained();
    }
}
