//! Save, load, convert and check container images as archives, without a daemon.

pub mod compress;
pub mod reference;
pub mod spec;
pub mod tar;
