//! How long images stay that no function is of any more.

/// `[images]`: how full the disk may get. The names are those of Kubernetes' kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Images {
    /// Percent in use above which images that nobody names are removed, those that were not used for longest first.
    pub high_threshold: u8,
    /// Percent in use at which that ends. Less than the other one, unless both are 0: then no such image is kept.
    pub low_threshold: u8,
}

impl Default for Images {
    fn default() -> Self {
        Self { high_threshold: 85, low_threshold: 70 }
    }
}
