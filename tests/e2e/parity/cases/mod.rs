//! The matrix, by theme.

mod order;

use super::case::Case;

pub fn all() -> Vec<Case> {
    order::cases()
}
