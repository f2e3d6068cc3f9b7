//! `/ui/`: what there is, on a page for people. It changes nothing, and asks for nothing else.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use hyper::Response;

use super::Gateway;
use super::reply::{Body, html};
use crate::key::Key;
use crate::reconcile::Function;

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
    <meta http-equiv=\"refresh\" content=\"10\"><title>Bothy</title><style>\
    body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem}\
    table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .8rem;border-bottom:1px solid #8884}\
    td:nth-child(n+3),th:nth-child(n+3){text-align:right}code{overflow-wrap:anywhere}\
    @media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}a{color:#8bf}}\
    </style></head><body><h1>Functions</h1>\n";

const TAIL: &str = "<p>Deploy, update and remove with <code>faas-cli</code>, or through the API below <code>/system/</code>.</p>\
    </body></html>\n";

/// What a row shows.
struct Row {
    key: Key,
    image: String,
    replicas: u64,
    available: usize,
    calls: u64,
}

impl Gateway {
    /// All functions of all namespaces, by name.
    pub fn page(&self) -> Response<Body> {
        let mut rows: Vec<_> = self.functions.all().iter().filter_map(|function| Row::of(function)).collect();
        rows.sort_by(|a, b| (&a.key.namespace, &a.key.name).cmp(&(&b.key.namespace, &b.key.name)));
        html(page(&rows))
    }
}

impl Row {
    fn of(function: &Function) -> Option<Self> {
        let document = function.document()?;
        Some(Self {
            key: function.key.clone(),
            image: document.image.clone(),
            replicas: document.replicas,
            available: function.available(),
            calls: function.calls.load(Ordering::Relaxed),
        })
    }
}

fn page(rows: &[Row]) -> String {
    let mut page = HEAD.to_owned();
    if rows.is_empty() {
        page.push_str("<p>There are none yet.</p>\n");
    } else {
        page.push_str(
            "<table><tr><th>Function</th><th>Image</th><th>Ready</th><th>Wanted</th><th>Calls</th></tr>\n",
        );
        for Row { key, image, replicas, available, calls } in rows {
            // Writing to a string does not fail.
            let _ = writeln!(
                page,
                "<tr><td><a href=\"/function/{key}\">{key}</a></td><td><code>{}</code></td><td>{available}</td>\
                 <td>{replicas}</td><td>{calls}</td></tr>",
                escaped(image)
            );
        }
        page.push_str("</table>\n");
    }
    page.push_str(TAIL);
    page
}

/// A text that is no markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_see() {
        assert!(page(&[]).contains("none yet"));
        let key = Key::new("figlet", "dev").unwrap();
        let row = Row { key, image: "a<b>&\"c".into(), replicas: 2, available: 1, calls: 7 };
        let page = page(&[row]);
        let wanted = "<tr><td><a href=\"/function/figlet.dev\">figlet.dev</a></td>\
                      <td><code>a&lt;b&gt;&amp;&quot;c</code></td><td>1</td><td>2</td><td>7</td></tr>";
        assert!(page.contains(wanted), "{page}");
    }
}
