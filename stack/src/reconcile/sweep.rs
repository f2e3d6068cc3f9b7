//! What former lives left: looked for once, before the actors begin, so that nothing new can be mistaken for it.

use std::collections::HashSet;
use std::sync::Arc;

use provisioning::Namespace;

use super::instance::{Instance, is_instance_name};
use super::{Functions, World, group};
use crate::desired::on_disk;
use crate::error::{Error, Result};

/// Takes note of every instance that exists (its address is taken, its function's actor will deal with it) and removes
/// what belongs to none. Only a look that fails is an error: what is not known could be mistaken for what is new. A
/// leftover that cannot be removed is told and stays.
pub async fn sweep(world: &Arc<World>, functions: &Arc<Functions>) -> Result<()> {
    ensure_namespaces(world, functions).await?;
    let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
    for namespace in world.containerd.namespaces().await? {
        let namespace = namespace.name.as_str();
        let containers = world.containerd.containers_of(namespace, None).await?;
        let ids: HashSet<_> = containers.iter().map(|container| container.id.clone()).collect();
        for instance in containers.iter().filter_map(|c| Instance::from_container(namespace, c)) {
            names.insert(instance.name());
            if let Some(address) = instance.address {
                addresses.insert(address);
                world.network.adopt(address);
            }
            functions.adopt(&instance.key);
        }
        for snapshot in world.containerd.instance_snapshots(namespace).await? {
            if !ids.contains(&snapshot) {
                tracing::info!("removing the snapshot {snapshot} of a former life");
                told(world.containerd.remove_snapshot(namespace, &snapshot).await);
                world.removed.notify_one();
            }
        }
        told(world.containerd.release_stale(namespace).await);
    }
    world.network.sweep(&names, &addresses).await?;
    sweep_fifos(world, &names);
    let (secrets, kept) = (world.secrets.clone(), names.clone());
    told(on_disk(move || secrets.sweep(&kept)).await);
    for folder in group::strays(&world.settings.cgroup_root, &names) {
        tracing::info!("removing the group {} of a former life", folder.display());
        told(group::end(&folder).await);
    }
    Ok(())
}

/// Makes the namespaces that there should be. One that is removed meanwhile, for we answer already, must not come back.
async fn ensure_namespaces(world: &World, functions: &Functions) -> Result<()> {
    let _turn = world.changing_namespaces.lock().await;
    // Not those of functions that were deleted and are only remembered: their namespace may have been removed too.
    let all = functions.all();
    let wanted = all.iter().filter(|f| f.document().is_some()).map(|function| function.key.namespace.clone());
    for namespace in wanted.chain(world.namespaces.names()).chain([Namespace::default()]) {
        world.containerd.ensure_namespace(namespace.as_str()).await?;
    }
    Ok(())
}

fn sweep_fifos(world: &World, names: &HashSet<String>) {
    let Ok(entries) = std::fs::read_dir(&world.settings.fifos) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        if is_instance_name(name) && !names.contains(name) {
            told(std::fs::remove_file(&path).map_err(|source| Error::Write { path, source }));
        }
    }
}

fn told(removed: Result<()>) {
    if let Err(error) = removed {
        tracing::warn!("a leftover of a former life stays: {error}");
    }
}
