//! keeper: see lib.rs.
