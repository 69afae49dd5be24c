//! state.json: what is read of it is what would be written.
#![no_main]

use hearth::store::record::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(record) = Record::parse(text) else { return };
    let once = serde_json::to_vec(&record).unwrap();
    let again = Record::parse(&once).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).unwrap(), once);
    let _ = record.process.map(|process| (process.is_alive(), process.wait_status()));
});
