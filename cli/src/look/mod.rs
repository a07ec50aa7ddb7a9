//! What `ls` and `diff` print, as text and as JSON. The documents are described in docs/JSON.md.

mod diff;
mod item;
mod list;

pub(crate) use diff::{Differing, text_of};
pub(crate) use list::{Listed, Rows};
