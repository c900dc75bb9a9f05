//! What the lab is asked to do.

/// The command line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Arguments {
    /// Checks whose name holds this.
    pub(crate) filter: String,
    /// How often each pair is run.
    pub(crate) runs: usize,
    /// How many MiB go each way.
    pub(crate) mebibytes: usize,
    /// Whether everything is run on every runtime, not only a core of it.
    pub(crate) full: bool,
    /// Where to write the table.
    pub(crate) table: Option<String>,
    /// Where results are kept, and found that need not be made again.
    pub(crate) results: Option<String>,
    /// After how many minutes no further check begins.
    pub(crate) minutes: Option<usize>,
}

impl Arguments {
    /// Reads it.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self {
            filter: String::new(),
            runs: 1,
            mebibytes: 10,
            full: false,
            table: None,
            results: None,
            minutes: None,
        };
        let mut words = words;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--full" => {
                    (arguments.runs, arguments.mebibytes, arguments.full) = (10, 100, true);
                }
                "--runs" => arguments.runs = number(&value()?)?,
                "--mib" => arguments.mebibytes = number(&value()?)?,
                "--table" => arguments.table = Some(value()?),
                "--results" => arguments.results = Some(value()?),
                "--minutes" => arguments.minutes = Some(number(&value()?)?),
                // Cargo's own test arguments mean nothing here.
                _ if word.starts_with('-') => {}
                _ => arguments.filter = word,
            }
        }
        Ok(arguments)
    }
}

fn number(word: &str) -> Result<usize, String> {
    word.parse().ok().filter(|number| *number > 0).ok_or_else(|| format!("{word:?} is no number above 0"))
}
