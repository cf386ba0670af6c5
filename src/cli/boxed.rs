//! Tables in boxes, for `ipam` and `node status`.

/// A table in a box, as calicoctl draws it.
pub(super) struct Boxed {
    headings: Vec<&'static str>,
    pub(super) rows: Vec<Vec<String>>,
    /// The first column whose cells are lined up on the right; all the following are.
    pub(super) right: usize,
    /// Whether headings stand in the middle.
    pub(super) centred: bool,
}

impl Boxed {
    pub(super) fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
            right: usize::MAX,
            centred: false,
        }
    }

    pub(super) fn text(&self) -> String {
        let headings: Vec<String> = self
            .headings
            .iter()
            .map(|&heading| heading.into())
            .collect();
        let width = |column: usize| {
            let cells = self
                .rows
                .iter()
                .chain([&headings])
                .map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..headings.len()).map(width).collect();
        let dashes: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
        let line = format!("+{}+\n", dashes.join("+"));
        let row = |cells: &[String], right: usize| {
            let cells: Vec<String> = cells
                .iter()
                .enumerate()
                .map(|(column, cell)| match column >= right {
                    true => format!(" {cell:>width$} ", width = widths[column]),
                    false => format!(" {cell:<width$} ", width = widths[column]),
                })
                .collect();
            format!("|{}|\n", cells.join("|"))
        };
        let heading = match self.centred {
            true => {
                let cells = headings.iter().zip(&widths);
                let cells: Vec<String> = cells
                    .map(|(cell, width)| format!(" {cell:^width$} "))
                    .collect();
                format!("|{}|\n", cells.join("|"))
            }
            false => row(&headings, self.right),
        };
        let mut text = format!("{line}{heading}{line}");
        for cells in &self.rows {
            text.push_str(&row(cells, self.right));
        }
        text + &line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_calicoctls() {
        let mut table = Boxed::new(&["GROUPING", "CIDR"]);
        table
            .rows
            .push(vec!["Block".into(), "10.65.79.0/26".into()]);
        assert_eq!(
            table.text(),
            "+----------+---------------+\n\
             | GROUPING | CIDR          |\n\
             +----------+---------------+\n\
             | Block    | 10.65.79.0/26 |\n\
             +----------+---------------+\n"
        );
    }
}
