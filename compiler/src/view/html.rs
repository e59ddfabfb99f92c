//! The view as one HTML page that needs nothing else: a card per segment along the model's path, exits
//! beside it, nodes inside the cards.

use std::fmt::Write;

use eec_ir::{Graph, NodeId, ValueId, cost};

use super::{Branch, Decision, Item, Kind, Measured, Segment, View, title};
use crate::display::si;
use crate::report::escape;

const STYLE: &str = include_str!("style.css");

/// The page.
pub fn html(view: &View<'_>) -> String {
    let page = Page { view, most_us: most_us(&view.items).max(f64::MIN_POSITIVE) };
    let title = view.model.path.file_name().map(|n| escape(&n.to_string_lossy())).unwrap_or_default();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}: graph</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{}<ol class=\"path\">\n{}{}{}</ol>\n\
         </main>\n</body>\n</html>\n",
        page.opening(),
        page.ports("input", inputs(view.graph)),
        page.items(&view.items),
        page.ports("output", outputs(view.graph)),
    )
}

/// Names and types.
type Ports = Vec<(String, String)>;

fn inputs(graph: &Graph) -> Ports {
    graph.inputs().iter().map(|v| (shown(graph, *v), graph.ty(*v).to_string())).collect()
}

fn outputs(graph: &Graph) -> Ports {
    graph.output_names().iter().zip(graph.outputs()).map(|(n, v)| (n.to_string(), graph.ty(*v).to_string())).collect()
}

/// The longest time of a segment.
fn most_us(items: &[Item]) -> f64 {
    let of = |item: &Item| match item {
        Item::Segment(segment) => segment.us.unwrap_or(0.0),
        Item::Decision(decision) => decision.branches.iter().map(|b| most_us(&b.items)).fold(0.0, f64::max),
    };
    items.iter().map(of).fold(0.0, f64::max)
}

/// Microseconds as people read them.
fn time(us: f64) -> String {
    if us < 1000.0 { format!("{us:.1} µs") } else { format!("{:.2} ms", us / 1e3) }
}

fn bytes(count: u64) -> String {
    if count < 1000 { format!("{count} B") } else { format!("{}B", si(count as f64)) }
}

fn shown(graph: &Graph, value: ValueId) -> String {
    graph.value(value).name.as_deref().map_or_else(|| value.to_string(), str::to_string)
}

struct Page<'a> {
    view: &'a View<'a>,
    most_us: f64,
}

impl Page<'_> {
    fn opening(&self) -> String {
        let (graph, model) = (self.view.graph, self.view.model);
        // Of the plain model, as `inspect` says it elsewhere; what was inserted comes on top.
        let parameters = |graph: &Graph| si(cost::parameters(graph) as f64);
        let nodes = |graph: &Graph| graph.nodes_in_order().len();
        let mut facts =
            vec![format!("{} parameters", parameters(&model.plain)), format!("{} nodes", nodes(&model.plain))];
        if model.dynamic.is_some() {
            let (parameters, nodes) = (parameters(graph), nodes(graph));
            facts.push(format!("{parameters} parameters and {nodes} nodes with what was inserted"));
        }
        facts.extend(model.changes());
        let facts: String = facts.iter().map(|f| format!("<li>{}</li>", escape(f))).collect();
        let measured = self.view.measured.as_ref().map(|m| self.measured(m)).unwrap_or_default();
        format!("<ul class=\"facts\">{facts}</ul>\n{measured}")
    }

    fn measured(&self, m: &Measured) -> String {
        let threads = if m.threads == 1 { "1 thread".into() } else { format!("{} threads", m.threads) };
        let other = match m.other_us / m.total_us.max(f64::MIN_POSITIVE) {
            share if share < 0.005 => String::new(),
            _ => format!("; {} belong to no segment", time(m.other_us)),
        };
        format!(
            "<p class=\"how\">{} in all kernels with {threads} on {}; nobody leaves and no gate takes effect, so that \
             everything is measured{other}. Bars compare segments.</p>\n",
            time(m.total_us),
            escape(&m.inputs.join(", "))
        )
    }

    fn ports(&self, what: &str, ports: Ports) -> String {
        let list: String = ports
            .iter()
            .map(|(name, ty)| format!("<li><b>{}</b> <code>{}</code></li>", escape(name), escape(ty)))
            .collect();
        format!("<li class=\"ports\"><span>{what}</span><ul>{list}</ul></li>\n")
    }

    fn items(&self, items: &[Item]) -> String {
        items
            .iter()
            .map(|item| match item {
                Item::Segment(segment) => format!("<li>{}</li>\n", self.segment(segment)),
                Item::Decision(decision) => self.decision(decision),
            })
            .collect()
    }

    /// An exit has who leaves beside it, and who goes on below it, on the same path. Other decisions have
    /// their regions side by side, and below them what both go on with.
    fn decision(&self, decision: &Decision) -> String {
        let time = decision.us.map(|us| format!(" {}", self.share(us))).unwrap_or_default();
        let name = escape(&title(self.view, decision)) + &time;
        match (&decision.kind, decision.branches.as_slice()) {
            (Kind::Exit(_), [leave, go_on]) => format!(
                "<li class=\"exit\"><div class=\"pill\">{name}</div><div class=\"leave\"><span>who leaves</span>{}</div>\
                 </li>\n{}",
                self.leaving(leave),
                self.items(&go_on.items)
            ),
            (kind, branches) => {
                let role = |b: &Branch| match (kind, b.role) {
                    (Kind::Gate(_), "then") => "where it takes effect",
                    (Kind::Gate(_), "else") => "elsewhere",
                    (_, role) => role,
                };
                let part = |b: &Branch| {
                    format!("<section><span>{}</span><ol class=\"path\">{}</ol></section>", role(b), self.branch(b))
                };
                let (joins, sides): (Vec<&Branch>, Vec<&Branch>) = branches.iter().partition(|b| b.role == "join");
                let parts: String = sides.into_iter().map(part).collect();
                let after: String = joins.into_iter().map(|b| self.items(&b.items)).collect();
                format!(
                    "<li class=\"gate\"><div class=\"pill\">{name}</div><div class=\"sides\">{parts}</div></li>\n{after}"
                )
            }
        }
    }

    fn branch(&self, branch: &Branch) -> String {
        if branch.items.is_empty() { "<li class=\"none\">nothing runs</li>".into() } else { self.items(&branch.items) }
    }

    fn leaving(&self, branch: &Branch) -> String {
        let nodes: usize = branch.items.iter().map(count).sum();
        match nodes {
            0 => "<p>with the head’s answer</p>".into(),
            _ => format!("<ol class=\"path\">{}</ol>", self.items(&branch.items)),
        }
    }

    fn segment(&self, segment: &Segment) -> String {
        let macs = segment.macs.as_const().map_or_else(|| segment.macs.to_string(), |n| si(n as f64));
        let nodes = segment.nodes.len();
        let mut costs = vec![if nodes == 1 { "1 node".into() } else { format!("{nodes} nodes") }];
        if macs != "0" {
            costs.push(format!("{macs} MACs"));
        }
        if segment.weight_bytes > 0 {
            costs.push(format!("{} of weights", bytes(segment.weight_bytes)));
        }
        let bar = segment.us.map(|us| self.bar(us)).unwrap_or_default();
        let what = match segment.what.as_str() {
            "" => String::new(),
            what => format!(" <em>{}</em>", escape(what)),
        };
        let rows: String = segment.nodes.iter().map(|n| self.node(*n)).collect();
        format!(
            "<details class=\"{}\"><summary><b>{}</b>{what}{bar}<small>{}</small></summary><div class=\"nodes\"><table>\
             {rows}</table></div></details>",
            if self.is_inserted(segment) { "card inserted" } else { "card" },
            escape(&segment.name),
            escape(&costs.join(" · ")),
        )
    }

    fn is_inserted(&self, segment: &Segment) -> bool {
        segment.nodes.first().is_some_and(|n| self.view.graph.node(*n).origin.pass.is_some())
    }

    fn bar(&self, us: f64) -> String {
        let width = 100.0 * us / self.most_us;
        format!("<span class=\"time\"><i style=\"width:{width:.1}%\"></i></span>{}", self.share(us))
    }

    /// A time and its share of all.
    fn share(&self, us: f64) -> String {
        let total = self.view.measured.as_ref().map_or(us, |m| m.total_us).max(f64::MIN_POSITIVE);
        format!("<output>{} · {:.1} %</output>", time(us), 100.0 * us / total)
    }

    fn node(&self, id: NodeId) -> String {
        let graph = self.view.graph;
        let node = graph.node(id);
        let operand = |v: &ValueId| match graph.as_constant(*v) {
            Some(tensor) => format!("<i>{}</i>", escape(&tensor.ty().to_string())),
            None => escape(&shown(graph, *v)),
        };
        let operands: Vec<String> = node.inputs.iter().map(operand).collect();
        let results: Vec<String> = node.outputs.iter().map(|v| escape(&shown(graph, *v))).collect();
        let types: Vec<String> = node.outputs.iter().map(|v| escape(&graph.ty(*v).to_string())).collect();
        let mut row = String::new();
        let _ = writeln!(
            row,
            "<tr><td>{}</td><td><b>{}</b>({})</td><td>{}</td><td>{}</td></tr>",
            results.join(", "),
            node.op.name(),
            operands.join(", "),
            types.join(", "),
            escape(node.origin.source.as_deref().unwrap_or_default())
        );
        row
    }
}

/// The nodes of an item.
fn count(item: &Item) -> usize {
    match item {
        Item::Segment(segment) => segment.nodes.len(),
        Item::Decision(decision) => 1 + decision.branches.iter().flat_map(|b| &b.items).map(count).sum::<usize>(),
    }
}
