//! Products of very few rows: the right operand is read once, by lanes that share columns and split the depth.

use eec_ir::Dim;

use super::text::{Reason, Writer};
use super::tile::{Operands, Sizes};

/// Rows at most.
pub(super) const ROWS: i64 = 4;

/// Columns of a workgroup.
const COLUMNS: i64 = 16;

/// Lanes that share a column.
const SLICES: i64 = 16;

/// Lanes of a workgroup.
pub(super) const LANES: u32 = (COLUMNS * SLICES) as u32;

/// Workgroups for a product.
pub(super) fn groups(sizes: &Sizes) -> Result<Dim, Reason> {
    Ok(&sizes.matrices * &super::dims::groups(&sizes.columns, COLUMNS)?)
}

/// Writes a product of at most [`ROWS`] rows.
pub(super) fn write(w: &mut Writer, sizes: &Sizes, operands: &mut dyn Operands) -> Result<(), Reason> {
    w.global(format!("var<workgroup> slices: array<vec4<f32>, {LANES}>;"));
    let matrices = w.dim(&sizes.matrices)?;
    for (name, dim) in [("rows", &sizes.rows), ("columns", &sizes.columns), ("depth", &sizes.depth)] {
        let value = w.dim(dim)?;
        w.line(format!("let {name} = {value};"));
    }
    w.line(format!("let parts_across = (columns + {}) / {COLUMNS};", COLUMNS - 1));
    w.line(format!("let slice = lane / {COLUMNS};"));
    w.line(format!("for (var part = group; part < parts_across * {matrices}; part += groups) {{"));
    w.line("let matrix = part / parts_across;");
    w.line(format!("let column = (part - matrix * parts_across) * {COLUMNS} + lane % {COLUMNS};"));
    operands.matrix(w)?;
    operands.column(w, "column")?;
    w.line("var sums = vec4<f32>();");
    w.line("if column < columns {");
    w.line(format!("for (var step = slice; step < depth; step += {SLICES}) {{"));
    w.line("var b = 0.0;\n{\nvar value = 0.0;");
    operands.right(w, "step", "column")?;
    w.line("b = value;\n}");
    for (r, part) in ["x", "y", "z", "w"].into_iter().enumerate() {
        // The first row is there; others are wherever the product has any.
        w.line(if r == 0 { "{".to_string() } else { format!("if rows > {r} {{") });
        w.line("var value = 0.0;");
        operands.left(w, &r.to_string(), "step")?;
        w.line(format!("sums.{part} = fma(value, b, sums.{part});"));
        w.line("}");
    }
    w.line("}\n}");
    w.line("slices[lane] = sums;\nworkgroupBarrier();");
    w.line(format!("for (var half = {}; half > 0; half /= 2) {{", SLICES / 2));
    w.line(format!("if slice < half {{ slices[lane] += slices[lane + half * {COLUMNS}]; }}"));
    w.line("workgroupBarrier();\n}");
    w.line("if slice < rows && column < columns {");
    w.line(format!("let sum = slices[lane % {COLUMNS}][slice];"));
    operands.store(w, "slice", "column", "sum")?;
    w.line("}\nworkgroupBarrier();\n}");
    Ok(())
}
