//! The examples of this package.
