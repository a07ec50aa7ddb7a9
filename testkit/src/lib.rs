//! Test support for longshore.
