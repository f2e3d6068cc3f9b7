//! A folder of documents, one file each. What is no document is moved aside, not deleted and not fatal: one bad file
//! must not take the others along. What may be a good one (the disk did not give it, or a newer program wrote it) stays
//! in its place and is told.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::document::VERSION;
use super::file::entries;
use crate::error::Result;

/// A document that could not be used, and where it lies now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Where it is: in its place, or beside it under another name.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// The documents `NAME.json` of a folder, of which `check` tells what is wrong with one. Leftovers of an interrupted
/// write (`NAME.new`) are removed.
pub fn documents<T: DeserializeOwned>(
    folder: &Path,
    check: impl Fn(&Path, &T) -> Result<(), String>,
) -> Result<(Vec<T>, Vec<Unreadable>)> {
    let (mut documents, mut unreadable) = (Vec::new(), Vec::new());
    for path in entries(folder)? {
        match path.extension().and_then(|e| e.to_str()) {
            Some("new") => {
                if let Err(error) = fs::remove_file(&path) {
                    let reason = format!("is left of an interrupted write and stays: {error}");
                    unreadable.push(Unreadable { path, reason });
                }
            }
            Some("json") => match read(&path, &check) {
                Found::Good(document) => documents.push(document),
                Found::Closed(reason) => unreadable.push(Unreadable { path, reason }),
                Found::Wrong(reason) => unreadable.push(set_aside(path, reason)),
            },
            _ => {}
        }
    }
    Ok((documents, unreadable))
}

/// One of the documents of a folder that may be good and cannot be read; nothing is changed.
pub fn closed<T: DeserializeOwned>(
    folder: &Path,
    check: impl Fn(&Path, &T) -> Result<(), String>,
) -> Result<Option<Unreadable>> {
    for path in entries(folder)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "json")) {
        if let Found::Closed(reason) = read(&path, &check) {
            // One that has gone meanwhile is none.
            if path.exists() {
                return Ok(Some(Unreadable { path, reason }));
            }
        }
    }
    Ok(None)
}

/// What a file is.
enum Found<T> {
    /// A document.
    Good(T),
    /// Perhaps one, but not for us or not now.
    Closed(String),
    /// None.
    Wrong(String),
}

/// What every version of a document has.
#[derive(serde::Deserialize)]
struct Versioned {
    version: u32,
}

fn read<T: DeserializeOwned>(path: &Path, check: impl Fn(&Path, &T) -> Result<(), String>) -> Found<T> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => return Found::Closed(format!("cannot be read: {error}")),
    };
    match serde_json::from_slice::<Versioned>(&text) {
        Ok(Versioned { version }) if version > VERSION => {
            return Found::Closed(format!("is of version {version}, this program knows {VERSION}"));
        }
        _ => {}
    }
    match serde_json::from_slice(&text) {
        Ok(document) => match check(path, &document) {
            Ok(()) => Found::Good(document),
            Err(reason) => Found::Wrong(reason),
        },
        Err(error) => Found::Wrong(format!("is no document: {error}")),
    }
}

fn set_aside(path: PathBuf, reason: String) -> Unreadable {
    let aside = path.with_extension("json.unreadable");
    let path = if fs::rename(&path, &aside).is_ok() { aside } else { path };
    Unreadable { path, reason }
}
