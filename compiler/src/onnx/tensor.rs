//! Tensors and their types as ONNX stores them, in the model file or beside it, to and from the IR's.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use eec_ir::minifloat::Overflow;
use eec_ir::tensor::Storage;
use eec_ir::types::Class;
use eec_ir::{DType, Dim, Tensor, Type};

use super::proto::{
    DimValue, DimensionProto, EXTERNAL, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// The number that ONNX gives to an element type: its position in this list.
const NAMES: [&str; 27] = [
    "undefined",
    "f32",
    "u8",
    "i8",
    "u16",
    "i16",
    "i32",
    "i64",
    "string",
    "bool",
    "f16",
    "f64",
    "u32",
    "u64",
    "complex64",
    "complex128",
    "bf16",
    "f8e4m3fn",
    "f8e4m3fnuz",
    "f8e5m2",
    "f8e5m2fnuz",
    "u4",
    "i4",
    "f4e2m1",
    "f8e8m0",
    "u2",
    "i2",
];

/// The number that ONNX gives to an element type.
pub(crate) fn onnx_type(dtype: DType) -> i32 {
    NAMES.iter().position(|name| *name == dtype.name()).unwrap_or(0) as i32
}

/// The element type with this ONNX number.
pub(crate) fn dtype(onnx: i32) -> Option<DType> {
    usize::try_from(onnx).ok().and_then(|i| NAMES.get(i)).and_then(|name| DType::from_name(name))
}

/// The name of an ONNX element type, for messages.
pub(crate) fn type_name(onnx: i32) -> String {
    let known = usize::try_from(onnx).ok().and_then(|i| NAMES.get(i));
    known.map_or_else(|| format!("type {onnx}"), |n| (*n).to_string())
}

/// The files beside a model that hold its large tensors. Each is read once.
pub(crate) struct ExternalFiles {
    folder: Option<PathBuf>,
    files: HashMap<String, Storage>,
}

impl ExternalFiles {
    /// The files in `folder`; without one, external data is refused.
    pub(crate) fn new(folder: Option<&Path>) -> Self {
        let here = |f: &Path| {
            if f.as_os_str().is_empty() { PathBuf::from(".") } else { f.to_path_buf() }
        };
        ExternalFiles { folder: folder.map(here), files: HashMap::new() }
    }

    fn open(&mut self, location: &str) -> Result<Storage, String> {
        if let Some(storage) = self.files.get(location) {
            return Ok(storage.clone());
        }
        let Some(folder) = &self.folder else {
            return Err(format!("its data is in the file `{location}`, but the model was not read from a folder"));
        };
        let path = contained(folder, location)?;
        let bytes =
            std::fs::read(&path).map_err(|e| format!("its data file {} cannot be read: {e}", path.display()))?;
        let storage: Storage = Arc::new(bytes);
        self.files.insert(location.to_string(), storage.clone());
        Ok(storage)
    }
}

/// `location` inside `folder`; links are followed, and what leads out of the folder is refused.
fn contained(folder: &Path, location: &str) -> Result<PathBuf, String> {
    let relative = Path::new(location);
    let plain = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if location.is_empty() || !plain {
        return Err(format!("its data file `{location}` is not a path inside the model's folder"));
    }
    let path = folder.join(relative);
    let real = path.canonicalize().map_err(|e| format!("its data file {} cannot be read: {e}", path.display()))?;
    let root = folder.canonicalize().map_err(|e| format!("the folder {} cannot be read: {e}", folder.display()))?;
    if !real.starts_with(root) {
        return Err(format!("its data file `{location}` leads out of the model's folder"));
    }
    Ok(real)
}

/// The tensor that `proto` stores. Its bytes are moved, not copied, where they are raw.
pub(crate) fn decode(mut proto: TensorProto, external: &mut ExternalFiles) -> Result<Tensor, String> {
    let Some(dtype) = dtype(proto.data_type) else {
        return Err(format!("element type {} is not supported", type_name(proto.data_type)));
    };
    let dims = proto.dims.iter().map(|d| usize::try_from(*d)).collect::<Result<Vec<_>, _>>();
    let dims = dims.map_err(|_| format!("dims {:?} are not sizes", proto.dims))?;
    if proto.data_location == EXTERNAL {
        return decode_external(dtype, &dims, &proto, external);
    }
    if let Some(raw) = proto.raw_data.take_if(|raw| !raw.is_empty()) {
        let bytes = if dtype.bits() < 8 { unpacked(dtype, &dims, &raw)? } else { raw };
        return Tensor::from_bytes(dtype, &dims, bytes).map_err(|e| e.to_string());
    }
    typed(dtype, &dims, proto).map_err(|e| e.to_string())
}

/// A tensor whose elements are in a typed field: small types as the bits of 32-bit integers, those of less
/// than 8 bits packed into bytes first.
fn typed(dtype: DType, dims: &[usize], proto: TensorProto) -> Result<Tensor, String> {
    let bits =
        |size: usize| proto.int32_data.iter().flat_map(move |v| v.to_le_bytes().into_iter().take(size)).collect();
    let tensor = match (dtype, dtype.size()) {
        (DType::F32, _) => Tensor::new(dims, proto.float_data),
        (DType::I64, _) => Tensor::new(dims, proto.int64_data),
        (DType::I32, _) => Tensor::new(dims, proto.int32_data),
        (DType::F64, _) => Tensor::from_f64s(dtype, dims, &proto.double_data, Overflow::Special),
        (DType::U64 | DType::U32, _) => {
            let data: Vec<i128> = proto.uint64_data.iter().map(|v| i128::from(*v)).collect();
            Tensor::from_integers(dtype, dims, &data)
        }
        (DType::Bool, _) => Tensor::new(dims, proto.int32_data.iter().map(|v| u8::from(*v != 0)).collect()),
        _ if dtype.bits() < 8 => {
            let packed: Vec<u8> = proto.int32_data.iter().map(|v| *v as u8).collect();
            Tensor::from_bytes(dtype, dims, unpacked(dtype, dims, &packed)?)
        }
        (_, size) => Tensor::from_bytes(dtype, dims, bits(size)),
    };
    tensor.map_err(|e| e.to_string())
}

/// One byte per element, of elements that are packed into bytes, the first into the low bits.
fn unpacked(dtype: DType, dims: &[usize], packed: &[u8]) -> Result<Vec<u8>, String> {
    let (bits, per_byte) = (dtype.bits(), (8 / dtype.bits()) as usize);
    let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    let Some(count) = count.filter(|n| n.div_ceil(per_byte) == packed.len()) else {
        return Err(format!("{dtype}{dims:?} does not fit {} bytes", packed.len()));
    };
    let code = |i: usize| packed[i / per_byte] >> (bits as usize * (i % per_byte)) & ((1 << bits) - 1);
    let signed = dtype.class() == Class::Signed;
    let extended = |code: u8| if signed { ((code << (8 - bits)) as i8 >> (8 - bits)) as u8 } else { code };
    Ok((0..count).map(|i| extended(code(i))).collect())
}

/// The inverse of [`unpacked`].
fn packed(dtype: DType, bytes: &[u8]) -> Vec<u8> {
    let (bits, per_byte) = (dtype.bits() as usize, (8 / dtype.bits()) as usize);
    let byte = |codes: &[u8]| {
        codes.iter().enumerate().fold(0, |byte, (i, code)| byte | (code & ((1 << bits) - 1)) << (bits * i))
    };
    bytes.chunks(per_byte).map(byte).collect()
}

fn decode_external(
    dtype: DType,
    dims: &[usize],
    proto: &TensorProto,
    external: &mut ExternalFiles,
) -> Result<Tensor, String> {
    let entry = |key: &str| proto.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => {
            let parsed = text.trim().parse::<usize>();
            parsed.map(Some).map_err(|_| format!("the {key} of its data is `{text}`, which is no size"))
        }
    };
    let location = entry("location").ok_or("its data is in another file, which is not named")?;
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    let storage = external.open(location)?;
    let available = (*storage).as_ref().len();
    let end = offset.checked_add(length.unwrap_or(0));
    if end.is_none_or(|end| end > available) {
        let length = length.unwrap_or(0);
        return Err(format!("its data is at {offset}+{length} in `{location}`, which has {available} bytes"));
    }
    if dtype.bits() < 8 {
        return Err(format!("{dtype} is not supported in other files"));
    }
    let tensor = Tensor::from_storage(dtype, dims, storage, offset).map_err(|e| format!("in `{location}`: {e}"))?;
    match length {
        Some(length) if length != tensor.bytes().len() => {
            Err(format!("{dtype}{dims:?} needs {} bytes, `{location}` holds {length}", tensor.bytes().len()))
        }
        _ => Ok(tensor),
    }
}

/// `tensor` as ONNX stores it inside a model.
pub(crate) fn encode(tensor: &Tensor, name: &str) -> TensorProto {
    let dtype = tensor.dtype();
    TensorProto {
        dims: tensor.dims().iter().map(|d| *d as i64).collect(),
        data_type: onnx_type(dtype),
        name: name.to_string(),
        raw_data: Some(if dtype.bits() < 8 { packed(dtype, tensor.bytes()) } else { tensor.bytes().to_vec() }),
        ..TensorProto::default()
    }
}

/// A value's declaration; sizes that are expressions are written out as their names.
pub(crate) fn value_info(name: &str, ty: &Type) -> ValueInfoProto {
    let dim = |d: &Dim| DimensionProto {
        value: Some(match (d.as_const(), d.as_symbol()) {
            (Some(c), _) => DimValue::Value(c),
            (None, Some(symbol)) => DimValue::Param(symbol.as_str().to_string()),
            (None, None) => DimValue::Param(d.to_string()),
        }),
    };
    let shape = TensorShapeProto { dim: ty.dims.iter().map(dim).collect() };
    let tensor = TensorTypeProto { elem_type: onnx_type(ty.dtype), shape: Some(shape) };
    ValueInfoProto { name: name.to_string(), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}

#[cfg(test)]
mod tests {
    use super::super::proto::StringStringEntryProto;
    use super::*;

    fn external(entries: &[(&str, &str)]) -> TensorProto {
        let entry = |(k, v): &(&str, &str)| StringStringEntryProto { key: (*k).into(), value: (*v).into() };
        TensorProto {
            dims: vec![2],
            data_type: 1,
            data_location: EXTERNAL,
            external_data: entries.iter().map(entry).collect(),
            ..TensorProto::default()
        }
    }

    fn refusal(proto: TensorProto, folder: &Path) -> String {
        decode(proto, &mut ExternalFiles::new(Some(folder))).err().unwrap_or_default()
    }

    #[test]
    fn typed_and_raw_data_give_the_same_tensor() {
        let none = &mut ExternalFiles::new(None);
        let typed = TensorProto { dims: vec![3], data_type: 7, int64_data: vec![1, -2, 3], ..TensorProto::default() };
        let tensor = Tensor::vector(vec![1i64, -2, 3]);
        assert_eq!(decode(typed, none).as_ref(), Ok(&tensor));
        assert_eq!(decode(encode(&tensor, "t"), none), Ok(tensor));
    }

    #[test]
    fn data_that_does_not_fit_the_dims_is_refused() {
        let none = &mut ExternalFiles::new(None);
        let short = TensorProto { dims: vec![3], data_type: 1, raw_data: Some(vec![0; 8]), ..TensorProto::default() };
        assert_eq!(decode(short, none).err().as_deref(), Some("f32[3] needs 12 bytes, found 8"));
        let huge = TensorProto { dims: vec![1 << 40, 1 << 40], data_type: 1, ..TensorProto::default() };
        assert!(decode(huge, none).is_err_and(|e| e.contains("too large")));
        let negative = TensorProto { dims: vec![-1], data_type: 1, ..TensorProto::default() };
        assert_eq!(decode(negative, none).err().as_deref(), Some("dims [-1] are not sizes"));
    }

    #[test]
    fn external_data_stays_in_its_folder_and_file() -> Result<(), Box<dyn std::error::Error>> {
        let outer = tempfile::tempdir()?;
        let folder = outer.path().join("model");
        std::fs::create_dir(&folder)?;
        std::fs::write(outer.path().join("secret"), [0; 8])?;
        std::fs::write(folder.join("data"), [0, 0, 0, 0, 0, 0, 128, 63, 0, 0, 0, 64])?;

        let read = external(&[("location", "data"), ("offset", "4"), ("length", "8")]);
        let tensor = decode(read, &mut ExternalFiles::new(Some(&folder)))?;
        assert_eq!(tensor, Tensor::vector(vec![1.0f32, 2.0]));

        assert!(refusal(external(&[("location", "../secret")]), &folder).contains("not a path inside"));
        assert!(refusal(external(&[("location", "/etc/passwd")]), &folder).contains("not a path inside"));
        assert!(refusal(external(&[("location", "absent")]), &folder).contains("cannot be read"));
        assert!(
            refusal(external(&[("location", "data"), ("offset", "8")]), &folder).contains("needs 8 bytes, found 4")
        );
        let beyond = [("location", "data"), ("offset", "18446744073709551615"), ("length", "8")];
        assert!(refusal(external(&beyond), &folder).contains("has 12 bytes"));
        assert!(refusal(external(&[("location", "data"), ("length", "4")]), &folder).contains("holds 4"));
        assert!(refusal(external(&[("location", "data"), ("offset", "-4")]), &folder).contains("no size"));
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_folder_is_refused() -> std::io::Result<()> {
        let outer = tempfile::tempdir()?;
        let folder = outer.path().join("model");
        std::fs::create_dir(&folder)?;
        std::fs::write(outer.path().join("secret"), [0; 8])?;
        std::os::unix::fs::symlink(outer.path().join("secret"), folder.join("data"))?;
        assert!(refusal(external(&[("location", "data")]), &folder).contains("leads out"));
        Ok(())
    }
}
