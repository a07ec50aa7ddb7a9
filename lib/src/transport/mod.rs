//! Where archives are: files, and the two standard streams.

mod input;
mod output;

pub use input::{Archive, Section, keep, open_archive, open_stored, read_line, read_small};
pub use output::{Destination, FinishWrite, Given, Medium, Output, PollWrite};
