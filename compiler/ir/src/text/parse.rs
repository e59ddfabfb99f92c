//! Parsing: statements, regions and the graph around them.

use std::collections::HashMap;

use super::cursor::{Cursor, Fail};
use super::error::ParseErrors;
use super::lex::{self, Kind, Name};
use super::print::region_keywords;
use super::terms;
use crate::constant::{ConstPool, ContentHash};
use crate::dim::Symbol;
use crate::entity::{NodeId, RegionId, ValueId};
use crate::graph::{Graph, Origin};
use crate::op::Op;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// Regions may be nested this deep.
const MAX_DEPTH: usize = 64;

/// A constant that the text names by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConstRef {
    /// Element type.
    pub dtype: DType,
    /// Dims.
    pub dims: Vec<usize>,
    /// The hash's hexadecimal digits in lower case; hand-written texts use fewer than a full hash has.
    pub hash: String,
}

impl ConstRef {
    /// The hash, if the digits are a full one.
    pub fn content_hash(&self) -> Option<ContentHash> {
        let mut bytes = [0u8; 12];
        if self.hash.len() != 2 * bytes.len() {
            return None;
        }
        for (i, b) in bytes.iter_mut().enumerate() {
            *b = u8::from_str_radix(self.hash.get(2 * i..2 * i + 2)?, 16).ok()?;
        }
        Some(ContentHash(bytes))
    }
}

/// A resolver for [`parse`] that finds the constants of `pool` by their full hashes.
pub fn pool_resolver(pool: &ConstPool) -> impl FnMut(&ConstRef) -> Option<Tensor> + '_ {
    |constant| Some(pool.tensor(pool.find(constant.content_hash()?)?).clone())
}

/// The graph that `source` describes; `resolve` gives the tensors of constants written by hash.
///
/// The text is untrusted: whatever it holds, the outcome is a graph whose nodes passed inference, or
/// errors with their lines. Invariants beyond that are the [verifier](crate::verify)'s.
pub fn parse(source: &str, resolve: &mut dyn FnMut(&ConstRef) -> Option<Tensor>) -> Result<Graph, ParseErrors> {
    let tokens = lex::tokens(source).map_err(|e| ParseErrors { errors: vec![e] })?;
    let mut parser = Parser {
        cursor: Cursor::new(source, tokens),
        graph: Graph::new(""),
        names: HashMap::new(),
        open: vec![Graph::ROOT],
        broken: 0,
        resolve,
    };
    let outcome = parser.graph();
    match (outcome, parser.cursor.errors.is_empty()) {
        (Ok(()), true) => Ok(parser.graph),
        _ => Err(ParseErrors { errors: parser.cursor.errors }),
    }
}

/// What a name stands for.
enum Binding {
    /// A value of a region; `None` is a constant, visible everywhere below its definition.
    Value(ValueId, Option<RegionId>),
    /// The result of a statement that has an error; its uses are not reported again.
    Broken,
}

/// A name with its type, where it is given.
struct Declared {
    name: Name,
    offset: usize,
    ty: Option<Type>,
}

struct Parser<'a, 'r> {
    cursor: Cursor<'a>,
    graph: Graph,
    names: HashMap<Name, Binding>,
    open: Vec<RegionId>,
    /// Statements and last lines that have an error or need one that has.
    broken: usize,
    resolve: &'r mut dyn FnMut(&ConstRef) -> Option<Tensor>,
}

type Outcome<T> = Result<T, Fail>;

impl Parser<'_, '_> {
    fn graph(&mut self) -> Outcome<()> {
        self.cursor.expect_word("graph")?;
        match self.cursor.kind().clone() {
            Kind::At(name) => self.graph.name = name,
            _ => return self.cursor.expected("the graph's name, such as `@main`"),
        }
        self.cursor.advance();
        self.params(Graph::ROOT)?;
        self.cursor.expect("->")?;
        let outputs = self.cursor.list("(", ")", &mut typed)?;
        self.cursor.expect("{")?;
        while self.cursor.eat_word("assume") {
            let a = self.cursor.dim(0)?;
            self.cursor.expect("==")?;
            let b = self.cursor.dim(0)?;
            self.graph.assume_equal(a, b);
        }
        let offset = self.statements(Graph::ROOT, "return")?;
        if self.broken > 0 {
            return Err(Fail);
        }
        self.set_outputs(outputs, offset)?;
        match self.cursor.kind() {
            Kind::End => Ok(()),
            _ => self.cursor.expected("the end of the text"),
        }
    }

    /// Checks what `return` gave against the header, and names the outputs.
    fn set_outputs(&mut self, declared: Vec<Declared>, offset: usize) -> Outcome<()> {
        let values = self.graph.outputs().to_vec();
        if values.len() != declared.len() {
            let message = format!("expected {} results, as the header lists, found {}", declared.len(), values.len());
            return self.cursor.fail(offset, message);
        }
        for (value, d) in values.iter().zip(&declared) {
            self.check_type(*value, d)?;
        }
        let named = declared.into_iter().map(|d| match d.name {
            Name::Number(name) | Name::Text(name) => name,
        });
        self.graph.set_outputs(named.zip(values).collect());
        Ok(())
    }

    fn check_type(&mut self, value: ValueId, declared: &Declared) -> Outcome<()> {
        let found = self.graph.ty(value);
        match &declared.ty {
            Some(ty) if ty != found => {
                let message = format!("{} is declared as {ty}, but its type is {found}", declared.name);
                self.cursor.fail(declared.offset, message)
            }
            _ => Ok(()),
        }
    }

    fn bind(&mut self, name: &Name, offset: usize, binding: Binding) -> Outcome<()> {
        if let (Name::Text(text), Binding::Value(value, Some(_))) = (name, &binding) {
            self.graph.set_name(*value, text);
        }
        match self.names.insert(name.clone(), binding) {
            None | Some(Binding::Broken) => Ok(()),
            Some(Binding::Value(..)) => self.cursor.fail(offset, format!("{name} is defined twice")),
        }
    }

    fn params(&mut self, region: RegionId) -> Outcome<()> {
        for d in self.cursor.list("(", ")", &mut typed)? {
            let Some(ty) = d.ty else {
                return self.cursor.fail(d.offset, format!("expected a type for the parameter {}", d.name));
            };
            let value = self.graph.add_param(region, ty);
            self.bind(&d.name, d.offset, Binding::Value(value, Some(region)))?;
        }
        Ok(())
    }

    /// The statements of a region, its last line (`yield` or `return`) and the closing brace.
    /// Returns where the last line starts.
    fn statements(&mut self, region: RegionId, last: &str) -> Outcome<usize> {
        while !self.cursor.is_word(last) && !self.cursor.is("}") {
            if *self.cursor.kind() == Kind::End || self.cursor.is_hopeless() {
                return self.cursor.expected(&format!("a statement or `{last}`"));
            }
            self.statement(region);
        }
        let offset = self.cursor.offset();
        match self.last_line(last) {
            Ok(values) => self.graph.set_yields(region, values),
            Err(Fail) => {
                self.broken += 1;
                self.cursor.skip_to_brace();
            }
        }
        self.cursor.expect("}")?;
        Ok(offset)
    }

    fn last_line(&mut self, keyword: &str) -> Outcome<Vec<ValueId>> {
        self.cursor.expect_word(keyword)?;
        let mut values = Vec::new();
        while !self.cursor.is("}") {
            if !values.is_empty() && !self.cursor.eat(",") {
                return self.cursor.expected("`,` or `}`");
            }
            values.push(self.operand()?);
        }
        Ok(values)
    }

    /// One statement; after an error the parser stands at the next one.
    fn statement(&mut self, region: RegionId) {
        let start = self.cursor.position();
        let mut results = Vec::new();
        if self.results(&mut results).and_then(|()| self.right_side(region, &results)).is_ok() {
            return;
        }
        self.broken += 1;
        for r in results {
            self.names.entry(r.name).or_insert(Binding::Broken);
        }
        self.cursor.skip_statement(start);
    }

    /// `%a: f32[2], %b =`; nothing for a control operator without results.
    fn results(&mut self, into: &mut Vec<Declared>) -> Outcome<()> {
        if !matches!(self.cursor.kind(), Kind::Value(_)) {
            return match self.cursor.kind() {
                Kind::Word(_) => Ok(()),
                _ => self.cursor.expected("a statement"),
            };
        }
        loop {
            // The name first, so that it counts as broken if its type is.
            let at = into.len();
            into.push(named(&mut self.cursor)?);
            into[at].ty = optional_type(&mut self.cursor)?;
            if !self.cursor.eat(",") {
                break;
            }
        }
        self.cursor.expect("=")
    }

    fn right_side(&mut self, region: RegionId, results: &[Declared]) -> Outcome<()> {
        if let ([result], true) = (results, self.cursor.is_word("const")) {
            let value = self.operand()?;
            self.check_type(value, result)?;
            return self.bind(&result.name, result.offset, Binding::Value(value, None));
        }
        let offset = self.cursor.offset();
        let node = self.node(region)?;
        let values = self.graph.node(node).outputs.clone();
        if values.len() != results.len() {
            let message = format!(
                "{} gives {} results, the text names {}",
                self.graph.node(node).op,
                values.len(),
                results.len()
            );
            return self.cursor.fail(offset, message);
        }
        for (value, result) in values.into_iter().zip(results) {
            self.check_type(value, result)?;
            self.bind(&result.name, result.offset, Binding::Value(value, Some(region)))?;
        }
        Ok(())
    }

    /// An operator with attributes, operands, origin and regions, appended to `region`.
    fn node(&mut self, region: RegionId) -> Outcome<NodeId> {
        let offset = self.cursor.offset();
        let op = self.operator()?;
        let inputs = self.operands(matches!(op, Op::Route { .. } | Op::Loop { .. }))?;
        let origin = self.origin()?;
        let arity = op.arity();
        if !arity.contains(&inputs.len()) {
            let (least, most) = (arity.start(), arity.end());
            let wanted = if least == most { least.to_string() } else { format!("{least} to {most}") };
            return self.cursor.fail(offset, format!("{op} takes {wanted} operands, found {}", inputs.len()));
        }
        let outcome = if op.is_control() {
            let regions = self.regions(&op)?;
            self.graph.append_control(region, op, &inputs, regions, origin)
        } else {
            self.graph.append(region, op, &inputs, origin)
        };
        outcome.or_else(|e| self.cursor.fail(offset, e.to_string()))
    }

    fn operator(&mut self) -> Outcome<Op> {
        let offset = self.cursor.offset();
        let name = self.cursor.word("an operator's name")?;
        let attrs = if self.cursor.is("{") { self.cursor.attributes()? } else { Vec::new() };
        terms::operator(&name, attrs).or_else(|e| self.cursor.fail(offset, e.to_string()))
    }

    /// `(%a, %b)`; a `Route` has `;` after its mask, a `Loop` after its condition.
    fn operands(&mut self, decides: bool) -> Outcome<Vec<ValueId>> {
        self.cursor.expect("(")?;
        let mut values = Vec::new();
        while !self.cursor.eat(")") {
            let separator = if decides && values.len() == 1 { ";" } else { "," };
            if !values.is_empty() && !self.cursor.eat(separator) {
                return self.cursor.expected(&format!("`{separator}` or `)`"));
            }
            values.push(self.operand()?);
        }
        Ok(values)
    }

    fn operand(&mut self) -> Outcome<ValueId> {
        if let Kind::Value(name) = self.cursor.kind() {
            let name = name.clone();
            return self.named_value(&name);
        }
        if let Some(v) = self.cursor.float(false) {
            return Ok(self.graph.constant(Tensor::scalar(v)));
        }
        let tensor = match self.cursor.kind() {
            Kind::Number(_) | Kind::Punct("-") => Tensor::scalar(self.cursor.signed()?),
            Kind::Word(w) if w == "true" || w == "false" => Tensor::scalar(self.cursor.truth()?),
            Kind::Word(w) if w == "const" => self.constant()?,
            _ => {
                return self.cursor.expected("an operand: a value, a number or `const`");
            }
        };
        Ok(self.graph.constant(tensor))
    }

    fn named_value(&mut self, name: &Name) -> Outcome<ValueId> {
        let offset = self.cursor.offset();
        self.cursor.advance();
        match self.names.get(name) {
            Some(Binding::Value(value, region)) if region.is_none_or(|r| self.open.contains(&r)) => Ok(*value),
            Some(Binding::Value(..)) => {
                self.cursor.fail(offset, format!("{name} is defined in a region that is not visible here"))
            }
            Some(Binding::Broken) => Err(Fail),
            None => self.cursor.fail(offset, format!("{name} is not defined above")),
        }
    }

    /// `const f32[4, 3] #77ab01` or `const f32[2] {1.0, -2.5}`.
    fn constant(&mut self) -> Outcome<Tensor> {
        self.cursor.advance();
        let offset = self.cursor.offset();
        let ty = self.cursor.ty()?;
        let dims = ty.const_dims().and_then(|d| d.into_iter().map(|d| usize::try_from(d).ok()).collect());
        let Some(dims): Option<Vec<usize>> = dims else {
            return self.cursor.fail(offset, format!("a constant's dims must be numbers from 0, found {ty}"));
        };
        let Kind::Hash(hash) = self.cursor.kind().clone() else {
            return match self.cursor.is("{") {
                true => self.cursor.elements(ty.dtype, &dims),
                false => self.cursor.expected("`#` and a hash, or `{` and elements"),
            };
        };
        let reference = ConstRef { dtype: ty.dtype, dims, hash };
        match (self.resolve)(&reference) {
            Some(tensor) if tensor.dtype() == reference.dtype && tensor.dims() == reference.dims => {
                self.cursor.advance();
                Ok(tensor)
            }
            Some(tensor) => self.cursor.expected(&format!("a constant of type {ty}, resolved to {}", tensor.ty())),
            None => self.cursor.expected(&format!("the hash of a known constant of type {ty}")),
        }
    }

    /// `@"block.0/fc" by exit-heads`, both parts optional.
    fn origin(&mut self) -> Outcome<Origin> {
        let mut origin = Origin::default();
        if let Kind::At(path) = self.cursor.kind() {
            origin.source = Some(path.as_str().into());
            self.cursor.advance();
        }
        if self.cursor.eat_word("by") {
            origin.pass = Some(self.cursor.dashed("a pass's name")?.into());
        }
        Ok(origin)
    }

    /// The regions of a control operator. All are read before an error in one ends the node.
    fn regions(&mut self, op: &Op) -> Outcome<Vec<RegionId>> {
        let broken = self.broken;
        let mut regions = Vec::new();
        for keyword in region_keywords(op) {
            if *keyword == "join" && !self.cursor.is_word(keyword) {
                break;
            }
            self.cursor.expect_word(keyword)?;
            regions.push(self.region()?);
        }
        if self.broken > broken { Err(Fail) } else { Ok(regions) }
    }

    /// `^1[r0](%h: f32[r0, 3]) { … yield %h }`; a join's length symbol follows its rows.
    fn region(&mut self) -> Outcome<RegionId> {
        if self.open.len() > MAX_DEPTH {
            return self.cursor.fail(self.cursor.offset(), format!("regions may be nested {MAX_DEPTH} deep"));
        }
        if *self.cursor.kind() == Kind::Region {
            self.cursor.advance();
        }
        let (mut rows, mut length) = (None, None);
        if self.cursor.eat("[") {
            rows = Some(self.symbol()?);
            length = if self.cursor.eat(",") { Some(self.symbol()?) } else { None };
            self.cursor.expect("]")?;
        }
        let region = self.graph.new_join(rows, length);
        self.open.push(region);
        let body = self.params(region).and_then(|()| {
            self.cursor.expect("{")?;
            self.statements(region, "yield")
        });
        self.open.pop();
        body.map(|_| region)
    }

    /// The symbol of a region's rows or length.
    fn symbol(&mut self) -> Outcome<Symbol> {
        let offset = self.cursor.offset();
        let dim = self.cursor.dim(0)?;
        match dim.as_symbol() {
            Some(symbol) => Ok(symbol.clone()),
            None => self.cursor.fail(offset, format!("expected a symbol of the region, found {dim}")),
        }
    }
}

/// `%a: f32[2]`, the type optional.
fn typed(cursor: &mut Cursor<'_>) -> Outcome<Declared> {
    let declared = named(cursor)?;
    Ok(Declared { ty: optional_type(cursor)?, ..declared })
}

fn named(cursor: &mut Cursor<'_>) -> Outcome<Declared> {
    let offset = cursor.offset();
    let Kind::Value(name) = cursor.kind().clone() else {
        return cursor.expected("a value, such as `%x`");
    };
    cursor.advance();
    Ok(Declared { name, offset, ty: None })
}

fn optional_type(cursor: &mut Cursor<'_>) -> Outcome<Option<Type>> {
    if cursor.eat(":") { cursor.ty().map(Some) } else { Ok(None) }
}
