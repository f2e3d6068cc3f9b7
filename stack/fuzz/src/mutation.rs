//! Neighbours of inputs, always the same ones: pieces that mean something, moved, doubled, cut and exchanged.

/// What parsers trip over.
const PIECES: [&[u8]; 40] = [
    b"",
    b"\0",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"%",
    b"%2",
    b"%2F",
    b"%00",
    b"+",
    b"-",
    b"_",
    b".",
    b"..",
    b"/",
    b"//",
    b"/../",
    b"\\",
    b"\"",
    b"'",
    b",",
    b":",
    b";",
    b"=",
    b"&",
    b"?",
    b"#",
    b"@",
    b"0",
    b"18446744073709551616",
    b"99999999999999999999999999999999999999999",
    b"null",
    b"{}",
    b"[[",
    "\u{feff}".as_bytes(),
    "µ".as_bytes(),
    "\u{202e}".as_bytes(),
    b"\xff",
    b"\x1b[2J",
];

/// Makes them, from numbers that only look random (xorshift64*).
pub struct Mutation(u64);

impl Mutation {
    /// From the beginning.
    pub fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// A neighbour of one of these.
    pub fn neighbour(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.one(inputs).clone();
        for _ in 0..=self.below(4) {
            let (from, to) = self.part(&bytes);
            let new = match self.below(5) {
                0 => Vec::new(),
                1 => self.one(&PIECES).to_vec(),
                2 => bytes[from..to].repeat(2),
                3 => vec![self.below(256) as u8],
                // A part of another.
                _ => {
                    let other = self.one(inputs);
                    let (from, to) = self.part(other);
                    other[from..to].to_vec()
                }
            };
            // In its place, or before it.
            let to = if self.below(2) == 0 { to } else { from };
            bytes.splice(from..to, new);
        }
        bytes
    }

    /// Short ones more often than long ones.
    fn part(&mut self, bytes: &[u8]) -> (usize, usize) {
        let from = self.below(bytes.len() + 1);
        let most = if self.below(3) > 0 { 4 } else { bytes.len() };
        (from, (from + self.below(most + 1)).min(bytes.len()))
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end.max(1)
    }
}
