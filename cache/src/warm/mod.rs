//! warm: see lib.rs.
