//! Images to bundles, by the real tools of the field: skopeo, umoci and Debian's docker-registry make and serve
//! the images, umoci's unpack is the reference for the trees.
//!
//! `HEARTH_TEST_UNPACK` names the executable whose `unpack` and `gc` are tested. A new test goes to the file
//! whose name says what it is about; `workshop` makes images, `tree` compares what came of them.
#![allow(clippy::unwrap_used, reason = "what a test cannot do, it fails by")]

mod archives;
mod crashes;
mod hostile;
mod registry;
mod store;
mod tree;
mod trees;
mod workshop;
