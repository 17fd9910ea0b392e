//! A version as an Iceberg table: metadata, manifest list and manifests over files as they lie there.
//!
//! ```text
//! shape.rs columns.rs    types of columns, and the numbers that columns keep for ever
//! judge.rs               which partitions the table leaves out, and why
//! cut.rs                 which files stand in which manifest
//! avro.rs                the container format          value.rs  bounds, as the format writes them
//! data.rs list.rs        a manifest; the list of a version's manifests     known.rs  columns of a file
//! metadata.rs            the table: schemas, partitions, one snapshot for each version, tags
//! warehouse.rs           where a client finds all of that
//! table.rs made.rs       what a name names; the bytes of one file
//! ```
//!
//! Everything is made from the ledger and the manifest of a version when it is asked for, and nothing
//! is stored but the numbers of columns (`ledger::ColumnIds`). Invariants:
//!
//! - Data files are what they are: no number of a column is in them, so names lead to numbers
//!   (`schema.name-mapping.default`), and partition values come from the list and not from the files.
//! - The bytes of a file are a function of its version, its warehouse and its name.
//! - Whatever cannot be read as the table says is left out and counted, never shown wrongly.
//!
//! Source of the formats: the Iceberg table specification, version 2, and that of its REST catalog.

mod avro;
mod columns;
mod cut;
mod data;
mod judge;
mod known;
mod list;
mod made;
mod metadata;
mod shape;
mod table;
mod value;
mod warehouse;

pub use judge::{LeftOut, left_out};
pub(crate) use made::{Remembered, made};
pub use table::{Refused, Table};
pub(crate) use table::{check, check_served, is_table, no_table};
pub use warehouse::{Place, Warehouse, WarehouseError};
