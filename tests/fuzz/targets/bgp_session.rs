#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| underpass_fuzz::bgp::session(data));
