//! What a program can check of the design: arrows, names, sizes, and what must not be in any file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    unreachable_pub
)]

mod sources;

mod arrows;
mod files;
mod text;
