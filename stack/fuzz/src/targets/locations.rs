//! Where a registry's redirect leads.

use hyper::Uri;

use crate::registry::location::{follow, same_server};

pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    for from in ["https://registry.example:5000/v2/a/blobs/x?y", "http://10.0.0.7/v2/"] {
        let from: Uri = from.parse().unwrap();
        let Some(to) = follow(&from, text) else { continue };
        assert!(to.host().is_some_and(|host| !host.is_empty()), "{to}");
        assert!(matches!(to.scheme_str(), Some("http" | "https")), "{to}");
        assert!(same_server(&to, &to) && same_server(&from, &to) == same_server(&to, &from));
        // A path alone stays where it is.
        if text.starts_with('/') && !text.starts_with("//") {
            assert!(same_server(&from, &to) && to.authority() == from.authority(), "{to}");
        }
        // Where it leads is what it says, and following it again from there leads nowhere else.
        assert_eq!(follow(&to, &to.to_string()).as_ref(), Some(&to), "{to}");
    }
}
