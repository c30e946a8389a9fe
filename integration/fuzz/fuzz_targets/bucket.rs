#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strandline::internals::fuzz::bucket(bytes));
