//! Aligned columns.

/// Rows under headings; columns are as wide as their widest cell and two spaces apart.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

/// A column's heading and the side on which its cells are lined up.
#[derive(Debug, Clone, Copy)]
pub enum Column {
    /// Text, on the left.
    Left(&'static str),
    /// Numbers, on the right.
    Right(&'static str),
}

impl Column {
    const fn heading(self) -> &'static str {
        match self {
            Self::Left(heading) | Self::Right(heading) => heading,
        }
    }
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[Column]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; an empty cell becomes `-`.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        let filled = |cell: String| {
            if cell.is_empty() {
                "-".to_owned()
            } else {
                cell
            }
        };
        self.rows.push(cells.into_iter().map(filled).collect());
    }

    /// The table, each line with a newline and no spaces at its end.
    pub fn text(&self) -> String {
        let headings = self
            .columns
            .iter()
            .map(|column| column.heading().to_owned())
            .collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&headings).chain(&self.rows).collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|index| {
                lines
                    .iter()
                    .map(|line| line[index].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        lines
            .into_iter()
            .map(|line| self.line(line, &widths))
            .collect()
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let padded = |((cell, width), column): ((&String, &usize), &Column)| match column {
            Column::Left(_) => format!("{cell:<width$}"),
            Column::Right(_) => format!("{cell:>width$}"),
        };
        let cells: Vec<_> = cells
            .iter()
            .zip(widths)
            .zip(&self.columns)
            .map(padded)
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    }
}

/// The value as a cell; `-` where there is none.
pub fn cell<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_lined_up() {
        let mut table = Table::new(&[Column::Left("NAME"), Column::Right("N"), Column::Left("X")]);
        table.row(vec!["é".to_owned(), "1000".to_owned(), String::new()]);
        table.row(vec!["longer".to_owned(), "7".to_owned(), "y".to_owned()]);
        assert_eq!(
            table.text(),
            "NAME       N  X\né       1000  -\nlonger     7  y\n"
        );
    }
}
