//! snapshot: see lib.rs.
