#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stack_fuzz::targets::callbacks::check(data));
