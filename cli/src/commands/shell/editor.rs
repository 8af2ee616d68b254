//! The line editor, on a thread of its own since it blocks: the connection lives on whatever a person does, or doesn't.

use std::borrow::Cow;
use std::sync::mpsc::{self, SyncSender, TrySendError};

use reedline::{
    Completer, EditCommand, Emacs, ExternalPrinter, Highlighter, HistoryItem, KeyCode, KeyModifiers,
    Reedline, ReedlineEvent, ReedlineMenu, Signal, StyledText, Validator, default_emacs_keybindings,
};
use tokio::sync::mpsc as tokio_mpsc;

use super::history::{self, Kept, Wanted};
use super::keys::read_ahead;
use super::menu;
use super::prompt::{Shown, Style};

/// Lines that may wait to be shown above the prompt.
const ABOVE: usize = 256;
/// The parser of the validator goes a step deeper for each bracket.
const STACK: usize = 16 * 1024 * 1024;

/// What came of a prompt.
#[derive(Debug)]
pub(super) enum Entered {
    /// A line, and what was typed behind it already.
    Line { text: String, ahead: Vec<u8> },
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D on an empty line.
    End,
    /// What `history` shows, or why it can't.
    History(Result<Vec<String>, String>),
    /// The terminal can't be used.
    Failed(String),
}

enum Order {
    Read { prompt: Shown, prefill: String },
    Remember(String),
    History(Wanted),
}

/// What the editor is made of.
pub(super) struct Parts {
    pub(super) history: Kept,
    pub(super) validator: Box<dyn Validator>,
    pub(super) completer: Option<Box<dyn Completer + Send>>,
    pub(super) style: Style,
}

/// The editor as the connection's thread sees it.
pub(super) struct Editor {
    orders: mpsc::Sender<Order>,
    answers: tokio_mpsc::UnboundedReceiver<Entered>,
    above: SyncSender<String>,
}

impl Editor {
    /// Starts it. It asks for nothing yet.
    ///
    /// # Errors
    /// There can be no further thread.
    pub(super) fn start(parts: Parts) -> std::io::Result<Self> {
        let (orders, to_do) = mpsc::channel();
        let (answer, answers) = tokio_mpsc::unbounded_channel();
        let printer = ExternalPrinter::new(ABOVE);
        let above = printer.sender();
        std::thread::Builder::new().name("editor".to_owned()).stack_size(STACK).spawn(move || {
            let mut editor = build(parts, printer);
            while let Ok(order) = to_do.recv() {
                let entered = match order {
                    Order::Read { prompt, prefill } => read(&mut editor, &prompt, prefill),
                    Order::Remember(line) => {
                        let _ = editor.history_mut().save(HistoryItem::from_command_line(line));
                        continue;
                    }
                    Order::History(wanted) => Entered::History(history::answer(editor.history_mut(), wanted)),
                };
                if answer.send(entered).is_err() {
                    return;
                }
                // Behind the answer: the line runs while its history is written. A history that can't be written is none.
                let _ = editor.sync_history();
            }
        })?;
        Ok(Editor { orders, answers, above })
    }

    /// Shows a prompt, with something typed already. [`Editor::answer`] gives what comes of it.
    pub(super) fn ask(&self, prompt: Shown, prefill: String) {
        // A thread that is gone is told by the answer that doesn't come.
        let _ = self.orders.send(Order::Read { prompt, prefill });
    }

    /// Asks something of what was typed before.
    pub(super) fn ask_history(&self, wanted: Wanted) {
        let _ = self.orders.send(Order::History(wanted));
    }

    /// Keeps a line that was not typed at a prompt.
    pub(super) fn remember(&self, line: &str) {
        let _ = self.orders.send(Order::Remember(line.to_owned()));
    }

    /// What came of what was asked last.
    pub(super) async fn answer(&mut self) -> Entered {
        let gone = || Entered::Failed("the line editor is gone".to_owned());
        self.answers.recv().await.unwrap_or_else(gone)
    }

    /// Shows a line above the prompt; gives it back when too many wait.
    pub(super) fn show_above(&self, line: String) -> Result<(), String> {
        match self.above.try_send(line) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            Err(TrySendError::Full(line)) => Err(line),
        }
    }
}

fn build(parts: Parts, printer: ExternalPrinter<String>) -> Reedline {
    let mut keys = default_emacs_keybindings();
    let next =
        ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(menu::NAME.to_owned()), ReedlineEvent::MenuNext]);
    keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, next);
    keys.add_binding(KeyModifiers::SHIFT, KeyCode::BackTab, ReedlineEvent::MenuPrevious);
    let mut editor = Reedline::create()
        .with_history(Box::new(parts.history))
        .with_validator(parts.validator)
        .with_highlighter(Box::new(Plain))
        .with_edit_mode(Box::new(Emacs::new(keys)))
        .with_ansi_colors(parts.style.is_coloured())
        .with_quick_completions(true)
        .with_partial_completions(true)
        .with_external_printer(printer)
        .use_bracketed_paste(true);
    if let Some(completer) = parts.completer {
        editor = editor
            .with_completer(completer)
            .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu::Quiet::new())));
    }
    editor
}

fn read(editor: &mut Reedline, prompt: &Shown, prefill: String) -> Entered {
    if !prefill.is_empty() {
        editor.run_edit_commands(&[EditCommand::Clear, EditCommand::InsertString(prefill)]);
    }
    match editor.read_line(prompt) {
        Ok(Signal::Success(text)) => Entered::Line { text, ahead: read_ahead() },
        Ok(Signal::CtrlD) => Entered::End,
        Ok(_) => Entered::Interrupted,
        Err(error) => Entered::Failed(error.to_string()),
    }
}

/// What is typed is shown as it is: what the words mean is the host's to say.
struct Plain;

impl Highlighter for Plain {
    fn highlight(&self, line: &str, _cursor: usize) -> StyledText {
        let mut text = StyledText::new();
        text.push((Default::default(), Cow::Borrowed(line).into_owned()));
        text
    }
}
