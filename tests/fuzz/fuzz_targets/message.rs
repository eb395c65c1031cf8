//! Any bytes as a message of the link: what is read is written as it was read, by either end.
#![no_main]

use ingress_model::wire::{FromAgent, FromProxy, read, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = read::<FromProxy>(bytes) {
        let written = write(&message).expect("a message can be written");
        assert_eq!(read::<FromProxy>(&written), Ok(message));
    }
    if let Ok(message) = read::<FromAgent>(bytes) {
        let written = write(&message).expect("a message can be written");
        assert_eq!(read::<FromAgent>(&written), Ok(message));
    }
});
