//! Invariants 1, 2, 3, 7 and 8: what stands where, and what it may read.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::Found;
use crate::dim::Symbol;
use crate::entity::{NodeId, RegionId, ValueId};
use crate::graph::{Def, Graph};
use crate::op::Op;

/// Where the walk stands.
struct Walk<'f, 'g> {
    found: &'f mut Found<'g>,
    /// The region that defines each value met so far.
    defined: HashMap<ValueId, RegionId>,
    /// The regions around the current node, outermost first.
    open: Vec<Open>,
    regions: HashSet<RegionId>,
    nodes: HashSet<NodeId>,
    /// The inputs' symbols, and those of rows, lengths and late sizes met so far.
    symbols: BTreeSet<Symbol>,
}

/// A region that the walk is in.
struct Open {
    region: RegionId,
    /// For a region of a `Route`: the symbols of the mask's rows.
    rows: BTreeSet<Symbol>,
}

/// Checks the structure. Returns whether types and dims can be looked at safely: every id exists,
/// and no region contains itself.
pub(super) fn check(found: &mut Found<'_>) -> bool {
    let before = found.errors.len();
    let symbols = input_symbols(found.graph);
    let mut walk = Walk {
        found,
        defined: HashMap::new(),
        open: Vec::new(),
        regions: HashSet::new(),
        nodes: HashSet::new(),
        symbols,
    };
    walk.region(Graph::ROOT, None, BTreeSet::new());
    !found.errors[before..].iter().any(|e| matches!(e.invariant, 1..=3))
}

impl<'g> Walk<'_, 'g> {
    fn graph(&self) -> &'g Graph {
        self.found.graph
    }

    fn region(&mut self, id: RegionId, owner: Option<NodeId>, rows: BTreeSet<Symbol>) {
        if !self.regions.insert(id) {
            return self.found.report(2, owner, "a region is owned twice, or contains itself");
        }
        let region = self.graph().region(id);
        if region.owner != owner {
            self.found.report(2, owner, "a region of the node names another owner");
        }
        self.row_symbol(id, owner);
        self.length_symbol(id, owner);
        self.open.push(Open { region: id, rows });
        for (i, v) in region.params.iter().enumerate() {
            self.define(*v, Def::Param(id, i), owner);
        }
        for node in &region.nodes {
            self.node(*node, id);
        }
        for v in &region.yields {
            self.operand(*v, owner, "yields");
        }
        self.open.pop();
    }

    fn row_symbol(&mut self, id: RegionId, owner: Option<NodeId>) {
        let route = owner.is_some_and(|n| matches!(self.graph().node(n).op, Op::Route { .. }));
        match (route, &self.graph().region(id).rows) {
            (true, None) => self.found.report(7, owner, "a region of the node has no row symbol"),
            (false, Some(s)) => {
                self.found.report(7, owner, format!("a region that is not a Route's has the row symbol {s}"))
            }
            (true, Some(s)) if !self.symbols.insert(s.clone()) => {
                self.found.report(7, owner, format!("the row symbol {s} is used twice"));
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    fn length_symbol(&mut self, id: RegionId, owner: Option<NodeId>) {
        let Some(length) = &self.graph().region(id).length else { return };
        let is_join = owner.is_some_and(|n| self.graph().node(n).regions.get(2) == Some(&id));
        if !is_join {
            self.found.report(7, owner, format!("a region that is no join has the length symbol {length}"));
        } else if !self.symbols.insert(length.clone()) {
            self.found.report(7, owner, format!("the length symbol {length} is used twice"));
        }
    }

    fn node(&mut self, id: NodeId, region: RegionId) {
        if !self.nodes.insert(id) {
            return self.found.report(2, Some(id), "the node stands in the graph twice");
        }
        let node = self.graph().node(id);
        if node.parent != region {
            self.found.report(2, Some(id), "the node names another region as its parent");
        }
        self.arity(id);
        for v in &node.inputs {
            self.operand(*v, Some(id), "reads");
        }
        if let Some(symbol) = node.op.late_symbol().filter(|s| !self.symbols.insert((*s).clone())) {
            self.found.report(7, Some(id), format!("the symbol {symbol} has a value already"));
        }
        let rows = self.mask_symbols(id);
        for inner in &node.regions {
            self.region(*inner, Some(id), rows.clone());
        }
        for (i, v) in node.outputs.iter().enumerate() {
            self.define(*v, Def::Node(id, i), Some(id));
        }
    }

    fn arity(&mut self, id: NodeId) {
        let node = self.graph().node(id);
        let (arity, found) = (node.op.arity(), node.inputs.len());
        if !arity.contains(&found) {
            let message = format!("expected {} to {} operands, found {found}", arity.start(), arity.end());
            self.found.report(3, Some(id), message);
        }
        let (expected, fits) = match (&node.op, node.regions.len()) {
            (Op::Route { .. }, found) => ("2 or 3", found == 2 || found == 3),
            (Op::Loop { .. }, found) => ("1", found == 1),
            (op, found) if op.is_control() => ("2", found == 2),
            (_, found) => ("0", found == 0),
        };
        if !fits {
            let message = format!("expected {expected} regions, found {}", node.regions.len());
            self.found.report(3, Some(id), message);
        }
    }

    fn exists(&self, value: ValueId) -> bool {
        value.index() < self.graph().value_count()
    }

    fn mask_symbols(&self, id: NodeId) -> BTreeSet<Symbol> {
        let node = self.graph().node(id);
        let mut symbols = BTreeSet::new();
        let mask = node.inputs.first().filter(|v| self.exists(**v) && matches!(node.op, Op::Route { .. }));
        if let Some(rows) = mask.and_then(|v| self.graph().ty(*v).dims.first()) {
            rows.collect_symbols(&mut symbols);
        }
        symbols
    }

    fn define(&mut self, value: ValueId, def: Def, node: Option<NodeId>) {
        if !self.exists(value) || self.graph().value(value).def != def {
            return self.found.report(2, node, "a result or parameter does not know its definition");
        }
        if let Some(open) = self.open.last() {
            self.defined.insert(value, open.region);
        }
    }

    /// Checks that `value` may be used here: by `node`, or by the yields of a region that it owns.
    fn operand(&mut self, value: ValueId, node: Option<NodeId>, verb: &str) {
        if !self.exists(value) {
            return self.found.report(1, node, format!("{verb} the value {value}, which does not exist"));
        }
        if let Def::Const(_) = self.graph().value(value).def {
            return;
        }
        let home = self.defined.get(&value);
        let Some(depth) = home.and_then(|home| self.open.iter().position(|o| o.region == *home)) else {
            let why = match (home, self.graph().value(value).def) {
                (Some(_), _) => "whose region is not visible here".to_string(),
                (None, Def::Node(n, _)) => format!("which {} defines later or not at all", self.graph().describe(n)),
                (None, Def::Param(..) | Def::Const(_)) => "a parameter of another region".to_string(),
            };
            let name = self.found.printer().value(value);
            return self.found.report(1, node, format!("{verb} {name}, {why}"));
        };
        let mut symbols = BTreeSet::new();
        self.graph().ty(value).dims.iter().for_each(|d| d.collect_symbols(&mut symbols));
        let depends = |o: &Open| !o.rows.is_empty() && o.rows.is_subset(&symbols);
        if self.open[depth + 1..].iter().any(depends) {
            let (name, ty) = (self.found.printer().value(value), self.graph().ty(value));
            let message =
                format!("{verb} {name} of type {ty} from outside a Route over those rows; pass it as an operand");
            self.found.report(8, node, message);
        }
    }
}

/// The symbols in the inputs' types.
pub(super) fn input_symbols(graph: &Graph) -> BTreeSet<Symbol> {
    let mut symbols = BTreeSet::new();
    for v in graph.inputs() {
        graph.ty(*v).dims.iter().for_each(|d| d.collect_symbols(&mut symbols));
    }
    symbols
}
