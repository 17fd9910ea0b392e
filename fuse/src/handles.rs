//! handles: see lib.rs and docs/decisions/0001-read-path-seams.md.
