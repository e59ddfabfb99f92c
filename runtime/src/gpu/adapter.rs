//! Adapters: which there are, what they allow, and finding one by its name.

use crate::error::{Error, ErrorKind};

/// The interfaces to drivers that are used: one per operating system.
const BACKENDS: wgpu::Backends = wgpu::Backends::VULKAN.union(wgpu::Backends::METAL).union(wgpu::Backends::DX12);

/// What to do where there is no adapter.
const INSTALL: &str = if cfg!(target_os = "linux") {
    "install a Vulkan driver: that of the GPU's maker, or Mesa's, which has one without a GPU as well \
     (Debian, Ubuntu: apt-get install mesa-vulkan-drivers libvulkan1)"
} else if cfg!(target_os = "macos") {
    "Metal is needed, which macOS brings along"
} else {
    "install the driver of the GPU's maker, which brings DirectX 12 or Vulkan"
};

/// A GPU, or a program that stands in for one, with the driver that reaches it.
#[derive(Clone)]
pub struct Adapter {
    pub(super) adapter: wgpu::Adapter,
    /// Its name, as the driver gives it.
    pub name: String,
    /// `discrete`, `integrated`, `virtual`, `software`, or `unknown`.
    pub kind: &'static str,
    /// The interface: `vulkan`, `metal` or `dx12`.
    pub interface: String,
    /// The driver and its version.
    pub driver: String,
    /// What it allows at most.
    pub limits: AdapterLimits,
    /// What the driver says of its optional features; those that count are tried before they are used.
    pub features: Vec<&'static str>,
}

/// Limits of an adapter that decide what models fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdapterLimits {
    /// Bytes of a tensor that a shader can see: a constant, or all temporary buffers together.
    pub binding_bytes: u64,
    /// Bytes of one block of memory.
    pub buffer_bytes: u64,
    /// Bytes of memory that the invocations of a workgroup share.
    pub workgroup_bytes: u32,
    /// Storage buffers that a shader can see.
    pub storage_buffers: u32,
}

/// Optional features that people are told of.
const FEATURES: &[(wgpu::Features, &str)] = &[
    (wgpu::Features::SHADER_F16, "f16"),
    (wgpu::Features::SUBGROUP, "subgroups"),
    (wgpu::Features::TIMESTAMP_QUERY, "timestamps"),
    (wgpu::Features::PIPELINE_CACHE, "pipeline cache"),
];

impl std::fmt::Debug for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adapter").field("name", &self.name).field("driver", &self.driver).finish_non_exhaustive()
    }
}

impl Adapter {
    fn new(adapter: wgpu::Adapter) -> Adapter {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "unknown",
        };
        let limits = AdapterLimits {
            binding_bytes: limits.max_storage_buffer_binding_size,
            buffer_bytes: limits.max_buffer_size,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
        };
        let driver = [info.driver, info.driver_info].join(" ").trim().to_string();
        Adapter {
            name: info.name,
            kind,
            interface: info.backend.to_string(),
            driver,
            limits,
            features: FEATURES.iter().filter(|(f, _)| features.contains(*f)).map(|(_, name)| *name).collect(),
            adapter,
        }
    }

    /// The adapter whose name contains `name`, letter case aside; without a name the best one: one of the
    /// machine's GPUs before one that is computed.
    ///
    /// Fails if there is none, and says what to install or what there is.
    pub fn find(name: Option<&str>) -> Result<Adapter, Error> {
        let all = adapters()?;
        let Some(wanted) = name else {
            let best = all.into_iter().next();
            return best.ok_or_else(|| missing(format!("there is no adapter: {INSTALL}")));
        };
        let names: Vec<String> = all.iter().map(|a| format!("{:?}", a.name)).collect();
        let lower = wanted.to_lowercase();
        all.into_iter().find(|a| a.name.to_lowercase().contains(&lower)).ok_or_else(|| match names.as_slice() {
            [] => missing(format!("there is no adapter, and so none called {wanted:?}: {INSTALL}")),
            names => missing(format!("no adapter is called {wanted:?}; there is {}", names.join(", "))),
        })
    }

    /// What errors call it.
    pub(super) fn subject(&self) -> String {
        format!("adapter {:?}", self.name)
    }

    /// An error about it.
    pub(super) fn error(&self, kind: ErrorKind, why: impl std::fmt::Display) -> Error {
        Error::new(kind, self.subject(), why)
    }
}

fn missing(why: String) -> Error {
    Error::new(ErrorKind::Device, "GPU", why)
}

/// All adapters, the best first; none if there is no driver.
pub fn adapters() -> Result<Vec<Adapter>, Error> {
    if wgpu::Instance::enabled_backend_features().intersection(BACKENDS).is_empty() {
        return Err(Error::new(ErrorKind::Feature, "GPU", "there is no backend for this operating system"));
    }
    // No layers for debugging, which slow everything down. Groups of an indirect dispatch are checked, since
    // shaders may come from a file.
    let descriptor = wgpu::InstanceDescriptor {
        backends: BACKENDS,
        flags: wgpu::InstanceFlags::VALIDATION_INDIRECT_CALL,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    };
    let instance = wgpu::Instance::new(descriptor);
    let mut found: Vec<Adapter> =
        pollster::block_on(instance.enumerate_adapters(BACKENDS)).into_iter().map(Adapter::new).collect();
    let rank = |adapter: &Adapter| ["discrete", "integrated", "virtual"].iter().position(|k| *k == adapter.kind);
    found.sort_by_key(|adapter| rank(adapter).unwrap_or(usize::MAX));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_refused_with_what_there_is() {
        let error = Adapter::find(Some("no such adapter")).map(|a| a.name).expect_err("a name that none has");
        assert_eq!(error.kind(), ErrorKind::Device);
        let text = error.to_string();
        assert!(text.contains("\"no such adapter\""), "{text}");
        let named = adapters().expect("a list").iter().all(|a| text.contains(&a.name));
        assert!(named && (text.contains("there is ") || text.contains("install")), "{text}");
    }
}
