//! `eec adapters`: the GPUs that `--backend gpu` can use.

#[cfg(feature = "gpu")]
use std::process::ExitCode;

#[cfg(feature = "gpu")]
use eec_runtime::gpu::{Adapter, adapters};
#[cfg(feature = "gpu")]
use serde_json::{Value, json};

use super::Outcome;
#[cfg(feature = "gpu")]
use super::{JSON_SCHEMA, output};

/// Lists the GPUs, the one first that is used unless --adapter names another.
///
/// What is computed by the CPU in a GPU's stead is called `software`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Prints one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[cfg(not(feature = "gpu"))]
pub(super) fn run(_args: Args) -> Outcome {
    Err(crate::backend::without_gpu())
}

#[cfg(feature = "gpu")]
pub(super) fn run(args: Args) -> Outcome {
    let found = adapters()?;
    if args.json {
        let adapters: Vec<Value> = found.iter().map(as_json).collect();
        output::print_json(&json!({ "schema": JSON_SCHEMA, "adapters": adapters }))?;
    } else if found.is_empty() {
        // Says what to install.
        Adapter::find(None)?;
    } else {
        output::print(&text(&found))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "gpu")]
fn as_json(adapter: &Adapter) -> Value {
    json!({
        "name": adapter.name, "kind": adapter.kind, "interface": adapter.interface, "driver": adapter.driver,
        "binding_bytes": adapter.limits.binding_bytes, "buffer_bytes": adapter.limits.buffer_bytes,
        "workgroup_bytes": adapter.limits.workgroup_bytes, "storage_buffers": adapter.limits.storage_buffers,
        "features": adapter.features,
    })
}

#[cfg(feature = "gpu")]
fn text(adapters: &[Adapter]) -> String {
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let head = ["name", "kind", "interface", "largest tensor", "largest buffer", "features", "driver"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(adapters.iter().map(|a| {
        vec![
            a.name.clone(),
            a.kind.into(),
            a.interface.clone(),
            mib(a.limits.binding_bytes),
            mib(a.limits.buffer_bytes),
            a.features.join(", "),
            a.driver.clone(),
        ]
    }));
    output::table(&rows)
}
