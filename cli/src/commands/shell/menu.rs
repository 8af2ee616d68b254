//! The menu of completions: reedline's columns, which say nothing where there is nothing to choose from.

use reedline::{
    ColumnarMenu, Completer, Editor, Menu, MenuBuilder, MenuEvent, MenuSettings, Painter, Suggestion,
};

/// Its name, by which keys call it.
pub(super) const NAME: &str = "completions";

/// All but what it shows is the inner one's.
pub(super) struct Quiet(ColumnarMenu);

impl Quiet {
    pub(super) fn new() -> Self {
        Quiet(ColumnarMenu::default().with_name(NAME).with_marker(""))
    }

    fn is_empty(&self) -> bool {
        self.0.get_values().is_empty()
    }
}

impl Menu for Quiet {
    fn menu_required_lines(&self, columns: u16) -> u16 {
        if self.is_empty() { 0 } else { self.0.menu_required_lines(columns) }
    }

    fn menu_string(&self, lines: u16, coloured: bool) -> String {
        if self.is_empty() { String::new() } else { self.0.menu_string(lines, coloured) }
    }

    fn min_rows(&self) -> u16 {
        if self.is_empty() { 0 } else { self.0.min_rows() }
    }

    fn settings(&self) -> &MenuSettings {
        self.0.settings()
    }

    fn is_active(&self) -> bool {
        self.0.is_active()
    }

    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }

    fn clear_input(&mut self) {
        self.0.clear_input();
    }

    fn on_activate(&mut self) {
        self.0.on_activate();
    }

    fn menu_event(&mut self, event: MenuEvent) {
        self.0.menu_event(event);
    }

    fn can_quick_complete(&self) -> bool {
        self.0.can_quick_complete()
    }

    fn can_partially_complete(
        &mut self,
        updated: bool,
        editor: &mut Editor,
        completer: &mut dyn Completer,
    ) -> bool {
        self.0.can_partially_complete(updated, editor, completer)
    }

    fn update_values(&mut self, editor: &mut Editor, completer: &mut dyn Completer) {
        self.0.update_values(editor, completer);
    }

    fn reset_position(&mut self) {
        self.0.reset_position();
    }

    fn update_working_details(
        &mut self,
        editor: &mut Editor,
        completer: &mut dyn Completer,
        painter: &Painter,
    ) {
        self.0.update_working_details(editor, completer, painter);
    }

    fn replace_in_buffer(&self, editor: &mut Editor) {
        self.0.replace_in_buffer(editor);
    }

    fn get_values(&self) -> &[Suggestion] {
        self.0.get_values()
    }

    fn results_are_provisional(&self) -> bool {
        self.0.results_are_provisional()
    }

    fn is_awaiting_first_answer(&self) -> bool {
        self.0.is_awaiting_first_answer()
    }
}
