//! The options of a mount: no list of them contradicts itself.
#![no_main]

use hearth::bundle::mount_options;
use hearth::sys::mount::ATIME;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let options = mount_options::parse(text.split(','));
    assert_eq!(options.set & options.clear & !ATIME, 0, "{options:?}");
    assert_eq!(options.tree_set & options.tree_clear & !ATIME, 0, "{options:?}");
    assert!(options.bind || !options.recursive_bind, "{options:?}");
    assert!(options.data.iter().all(|(key, value)| !(key.is_empty() && value.is_none())), "{options:?}");
});
