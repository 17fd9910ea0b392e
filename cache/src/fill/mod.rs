//! fill: see lib.rs.
