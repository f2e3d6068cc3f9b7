#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stack_fuzz::targets::retries::check(data));
