"""The page that `fovea serve` shows, in a real browser, with the model in the box."""

import base64
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import urllib.request
from importlib.util import find_spec
from pathlib import Path

from selenium.webdriver.common.keys import Keys

import browser
import program
from page_server import HoldingProxy, Server

PICTURE = Path(__file__).resolve().parents[2] / "assets" / "harbour.png"


class Shared:
    """What all tests use: a folder for files, one browser, and the server of tests that need no other."""

    folder = page = server = None


def setUpModule():
    folder = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(folder.cleanup)
    Shared.folder = Path(folder.name)
    Shared.server = Server()
    unittest.addModuleCleanup(Shared.server.stop)
    driver = browser.start(Shared.folder)
    unittest.addModuleCleanup(driver.quit)
    Shared.page = browser.Page(driver)


class PageTest(unittest.TestCase):
    """Each test opens the page anew."""

    def setUp(self):
        self.folder, self.page = Shared.folder, Shared.page
        self.server = self.start_server()
        self.page.open(self.server.address)
        self.page.severe()

    def start_server(self):
        """The server that the page is opened at; classes may start another."""
        return Shared.server

    def own_server(self, *options):
        server = Server(*options)
        self.addCleanup(server.stop)
        return server

    def tearDown(self):
        self.assertEqual(self.page.severe(), [])

    def assert_marks_at(self, findings):
        """The boxes drawn are those of the answer, to a pixel and a half of the picture shown."""
        width, height = self.page.js(
            "const {width, height} = document.getElementById('image').getBoundingClientRect(); return [width, height]")
        marks = self.page.marks()
        self.assertEqual(len(marks), len(findings))
        for mark, box in zip(marks, findings):
            wanted = (box["x_min"], box["y_min"], box["x_max"], box["y_max"])
            for got, want, size in zip(mark, wanted, (width, height, width, height)):
                self.assertAlmostEqual(got * size, want * size, delta=1.5)


class Pictures(PageTest):
    def test_a_chosen_file_is_shown_with_its_name_and_size(self):
        self.page.upload(PICTURE)
        self.assertEqual(self.page.text("#picture-name"), "harbour.png")
        self.assertIn("960 × 640", self.page.text("#picture-facts"))
        self.assertFalse(self.page.shown("#empty"))

    def test_a_picture_may_be_dropped_or_pasted(self):
        give = """
            const [kind, done] = arguments;
            fetch('page/harbour.png').then((response) => response.blob()).then((blob) => {
              const data = new DataTransfer();
              data.items.add(new File([blob], `${kind}.png`, {type: 'image/png'}));
              const event = kind === 'paste' ? new ClipboardEvent(kind, {clipboardData: data, bubbles: true, cancelable: true})
                                             : new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true});
              document.body.dispatchEvent(event);
              done();
            });"""
        for kind in ("drop", "paste"):
            self.page.driver.execute_async_script(give, kind)
            self.page.wait(lambda: self.page.text("#picture-name") == f"{kind}.png")

    def test_while_a_file_is_dragged_over_the_page_it_says_where_to_drop_it(self):
        drag = """
            const data = new DataTransfer();
            data.items.add(new File(['x'], 'x.png', {type: 'image/png'}));
            document.body.dispatchEvent(new DragEvent(arguments[0], {dataTransfer: data, bubbles: true}));"""
        self.page.js(drag, "dragenter")
        self.assertTrue(self.page.shown("#drop"))
        self.page.js(drag, "dragleave")
        self.assertFalse(self.page.shown("#drop"))

    def test_a_file_that_is_no_picture_is_refused_by_name(self):
        path = self.folder / "letter.txt"
        path.write_text("not a picture")
        self.page.one("#file").send_keys(str(path))
        self.page.wait(lambda: self.page.shown("#picture-error"))
        self.assertIn("letter.txt cannot be shown as a picture", self.page.text("#picture-error"))

    def test_a_format_that_the_server_does_not_read_is_sent_as_png(self):
        path = self.folder / "drawing.svg"
        path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="300" height="200"><circle r="90"/></svg>')
        self.page.one("#file").send_keys(str(path))
        self.page.wait(lambda: self.page.text("#picture-name") == "drawing.png")
        self.assertIn("300 × 200", self.page.text("#picture-facts"))
        self.assertIn("caption", self.page.ask("caption"))

    def test_on_touch_screens_a_photo_can_be_taken(self):
        self.assertFalse(self.page.shown("[data-do=photograph]"))
        self.page.open(self.server.address, 390, 800, touch=True)
        self.assertTrue(self.page.shown("[data-do=photograph]"))
        self.assertEqual(self.page.one("#camera").get_attribute("capture"), "environment")


class Answers(PageTest):
    def setUp(self):
        super().setUp()
        self.page.sample()

    def test_a_caption_comes_word_by_word_and_ends_as_the_servers(self):
        self.page.js("""
            window.seen = [];
            new MutationObserver(() => {
              const length = document.querySelector('.words')?.textContent.length ?? 0;
              if (length > (window.seen.at(-1) ?? 0)) window.seen.push(length);
            }).observe(document.getElementById('history'), {subtree: true, childList: true, characterData: true});""")
        answer = self.page.ask("caption")
        self.assertEqual(answer["caption"], self.server.ask("caption", PICTURE, length="normal")["caption"])
        self.assertEqual(self.page.text(".entry.open .words"), answer["caption"])
        self.assertGreater(len(self.page.js("return window.seen")), 3)

    def test_a_question_is_answered(self):
        answer = self.page.ask("query", "How many clouds are there?")
        self.assertEqual(self.page.text(".entry.open .words"), answer["answer"])
        self.assertEqual(answer["answer"],
                         self.server.ask("query", PICTURE, question="How many clouds are there?")["answer"])

    def test_a_question_needs_no_picture(self):
        self.page.click("[data-do=close]")
        self.assertIn("answer", self.page.ask("query", "What color is the sky?"))
        self.assertIn("Without picture", self.page.js("return document.getElementById('history').textContent"))

    def test_boxes_are_drawn_where_the_server_says_at_every_window_size(self):
        answer = self.page.ask("detect", "cloud")
        self.assertEqual(answer["objects"], self.server.ask("detect", PICTURE, object="cloud")["objects"])
        self.assertEqual(len(answer["objects"]), 2)
        for width in (1280, 1900, 700, 360):
            self.page.resize(width, 800)
            self.assert_marks_at(answer["objects"])
        labels = [mark.text for mark in self.page.all(".mark")]
        self.assertEqual(labels, [f"cloud {box['confidence']:.2f}" for box in answer["objects"]])

    def test_boxes_lie_on_the_upright_picture_when_it_is_stored_on_its_side(self):
        path = self.folder / "turned.jpg"
        self.page.jpeg_on_its_side(path)
        upright = self.page.ask("detect", "cloud")["objects"]
        self.page.upload(path)
        self.assertIn("960 × 640", self.page.text("#picture-facts"))
        turned = self.page.ask("detect", "cloud")["objects"]
        self.assert_marks_at(turned)
        self.assertEqual(len(turned), len(upright))
        for got, want in zip(turned, upright):
            for side in ("x_min", "y_min", "x_max", "y_max"):
                self.assertAlmostEqual(got[side], want[side], delta=0.03)

    def test_points_are_drawn_where_the_server_says(self):
        answer = self.page.ask("point", "boat")
        self.assertGreater(len(answer["points"]), 0)
        for mark, point in zip(self.page.marks(), answer["points"]):
            self.assertAlmostEqual((mark[0] + mark[2]) / 2, point["x"], delta=0.003)
            self.assertAlmostEqual((mark[1] + mark[3]) / 2, point["y"], delta=0.003)

    def test_what_is_not_there_is_said_to_be_not_found(self):
        self.assertEqual(self.page.ask("detect", "elephant")["objects"], [])
        self.assertEqual(self.page.text(".entry.open .words"), "No elephant found.")
        self.assertEqual(self.page.marks(), [])

    def test_a_finding_is_brought_out_when_its_confidence_is_focused(self):
        self.page.ask("detect", "cloud")
        self.page.js("document.querySelectorAll('.chip')[1].focus()")
        self.assertEqual([("on" in mark.get_attribute("class").split()) for mark in self.page.all(".mark")],
                         [False, True])

    def test_the_annotated_picture_is_saved_in_full_size(self):
        box = self.page.ask("detect", "cloud")["objects"][0]
        path = self.folder / "harbour-cloud.png"
        self.page.click(".entry.open [data-do=save]")
        self.page.wait(path.exists)
        # On the box's left edge, halfway down, is the colour of the marks.
        size, pixel = self.page.driver.execute_async_script("""
            const [file, x, y, done] = arguments;
            const image = new Image();
            image.src = `data:image/png;base64,${file}`;
            image.decode().then(() => {
              const context = new OffscreenCanvas(image.width, image.height).getContext('2d');
              context.drawImage(image, 0, 0);
              const at = [Math.round(x * image.width), Math.round(y * image.height)];
              done([[image.width, image.height], [...context.getImageData(...at, 1, 1).data]]);
            });""", base64.b64encode(path.read_bytes()).decode(), box["x_min"],
            (box["y_min"] + box["y_max"]) / 2)
        self.assertEqual(size, [960, 640])
        self.assertEqual(pixel, [255, 178, 36, 255])

    def test_settings_go_into_the_request(self):
        self.page.skill("detect")
        self.page.click(".settings summary")
        self.page.one("[name=max_objects]").send_keys("1")
        answer = self.page.ask("detect", "cloud")
        self.assertEqual((len(answer["objects"]), answer["finish_reason"]), (1, "length"))
        self.assertIn("Cut", self.page.text(".entry.open .answer"))


class HistoryOfAnswers(PageTest):
    def test_later_questions_about_a_picture_show_that_it_was_remembered_and_their_times(self):
        # A picture that this server has not seen: one pixel differs.
        self.page.sample()
        self.page.driver.execute_async_script("""
            const done = arguments[0];
            const canvas = document.createElement('canvas');
            [canvas.width, canvas.height] = [960, 640];
            const context = canvas.getContext('2d');
            context.drawImage(document.getElementById('image'), 0, 0);
            context.fillRect(0, 0, 1, 1);
            canvas.toBlob((blob) => {
              const data = new DataTransfer();
              data.items.add(new File([blob], 'new.png', {type: 'image/png'}));
              document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));
              done();
            });""")
        self.page.wait(lambda: self.page.text("#picture-name") == "new.png")
        first = self.page.ask("detect", "cloud")["usage"]
        self.assertEqual(first["cached_tokens"], 0)
        self.assertGreater(first["vision_ms"], 0)
        self.assertFalse(self.page.shown(".entry.open .known"))
        second = self.page.ask("detect", "tree")["usage"]
        self.assertGreater(second["cached_tokens"], 0)
        self.assertEqual(self.page.text(".entry.open .known"), "picture remembered")
        self.assertIn("when the picture was new", self.page.text(".entry.open .facts"))
        # The bars share one scale: their widths are as the times.
        newer, older = (self.page.js("""
            return [...arguments[0].children].reduce((sum, part) => sum + part.getBoundingClientRect().width, 0)""", bar)
            for bar in self.page.all(".bar"))
        self.assertLess(newer / older, 1.1 * second["total_ms"] / first["total_ms"] + 0.02)
        names = [name.text for name in self.page.all(".legend dt")]
        self.assertEqual(names[:5], ["queue", "picture", "vision", "prefill", "decode"])

    def test_an_older_answer_is_shown_again_with_its_boxes_and_its_picture(self):
        self.page.sample()
        clouds = self.page.ask("detect", "cloud")["objects"]
        self.page.ask("point", "boat")
        self.page.upload(self.copy("other.png"))
        self.page.ask("detect", "tree")
        self.page.js("[...document.querySelectorAll('.question')].at(-1).click()")
        self.assertEqual(self.page.text("#picture-name"), "harbour.png")
        self.assert_marks_at(clouds)
        self.assertEqual(self.page.answer()["objects"], clouds)
        # Asked again, it is about its own picture.
        self.page.js("document.querySelectorAll('.group')[0].querySelector('.question').click()")
        self.assertEqual(self.page.text("#picture-name"), "other.png")
        self.page.js("[...document.querySelectorAll('.question')].at(-1).click()")
        self.page.click(".entry.open [data-do=again]")
        self.page.wait(lambda: len(self.page.all(".entry.done")) == 4)
        self.assertEqual(self.page.text("#picture-name"), "harbour.png")
        self.assert_marks_at(clouds)

    def test_an_entry_is_removed_and_asked_again(self):
        self.page.sample()
        self.page.ask("detect", "cloud")
        self.page.click(".entry.open [data-do=again]")
        self.page.wait(lambda: len(self.page.all(".entry.done")) == 2)
        for left in (1, 0):
            self.page.js("document.querySelector('.question[aria-expanded=false]')?.click()")
            if not self.page.all(".entry.open"):
                self.page.click(".question")
            self.page.click(".entry.open [data-do=remove]")
            self.assertEqual(len(self.page.all(".entry")), left)
        self.assertEqual(self.page.marks(), [])

    def copy(self, name):
        path = self.folder / name
        shutil.copy(PICTURE, path)
        return path


class Copying(PageTest):
    # Every kind of character that a shell or JSON could trip over.
    QUESTION = """What's "left" of $HOME, `id` \\ or $(id)? ü"""

    def setUp(self):
        super().setUp()
        self.page.sample()
        shutil.copy(PICTURE, self.folder)

    def run_in_folder(self, *command):
        return subprocess.run(command, cwd=self.folder, check=True, capture_output=True, timeout=120).stdout.decode()

    def test_the_curl_command_gives_the_same_answer(self):
        answer = self.page.ask("detect", "cloud")
        printed = json.loads(self.run_in_folder("sh", "-c", self.page.copied("curl")))
        self.assertEqual(printed["objects"], answer["objects"])

    def test_the_curl_command_passes_any_text_unharmed(self):
        answer = self.page.ask("query", self.QUESTION)
        command = self.page.copied("curl")
        events = self.run_in_folder("sh", "-c", command).splitlines()
        self.assertEqual(json.loads(events[-2].removeprefix("data: "))["answer"], answer["answer"])
        # What the shell hands to curl is the question, unharmed.
        shown = self.run_in_folder("sh", "-c", "curl() { cat; }\n" + command)
        self.assertEqual(json.loads(shown)["question"], self.QUESTION)

    def test_the_curl_command_works_without_a_picture(self):
        self.page.click("[data-do=close]")
        answer = self.page.ask("query", self.QUESTION)
        events = self.run_in_folder("sh", "-c", self.page.copied("curl")).splitlines()
        self.assertEqual(json.loads(events[-2].removeprefix("data: "))["answer"], answer["answer"])

    @unittest.skipUnless(find_spec("moondream"), "the official client is not installed: pip install moondream")
    def test_the_python_script_gives_the_same_answers_through_the_official_client(self):
        asked = {"detect": "cloud", "point": "boat", "query": self.QUESTION, "caption": None}
        for skill, text in asked.items():
            self.page.ask(skill, text)
            printed = self.run_in_folder(sys.executable, "-c", self.page.copied("python"))
            # The client sends a JPEG of the picture, so the answer may differ in the last digits.
            self.assertTrue(printed.strip(), skill)
            if skill == "detect":
                self.assertEqual(printed.count("x_min"), 2)

    def test_the_json_is_the_answer(self):
        answer = self.page.ask("point", "boat")
        self.assertEqual(json.loads(self.page.copied("json")), answer)


class Keyboard(PageTest):
    def test_everything_is_reached_and_done_without_a_mouse(self):
        page = self.page
        page.tab_to("[data-do=sample]")
        page.press(Keys.ENTER)
        page.wait(lambda: page.shown("#figure"))
        # Behind a new picture the question has the focus.
        page.wait(lambda: page.focused().get_attribute("id") == "text")
        page.press("How many clouds are there?", Keys.ENTER)
        page.wait(lambda: page.all(".entry.done"))
        page.driver.switch_to.active_element.send_keys(Keys.SHIFT, Keys.TAB)
        self.assertEqual(page.focused().get_attribute("name"), "skill")
        page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
        page.tab_to("#text")
        page.press("cloud", Keys.ENTER)
        page.wait(lambda: len(page.all(".entry.done")) == 2)
        self.assertEqual(len(page.marks()), 2)
        page.tab_to(".chip")
        self.assertEqual(len(page.all(".mark.on")), 1)
        page.tab_to(".json summary")
        page.press(Keys.ENTER)
        self.assertTrue(page.shown(".entry.open pre"))
        page.tab_to("[data-copy=curl]")
        page.press(Keys.ENTER)
        page.wait(lambda: page.text("[data-copy=curl]") == "Copied")
        page.tab_to(".entry:not(.open) .question")
        page.press(Keys.ENTER)
        self.assertEqual(page.answer()["answer"], page.text(".entry.open .words"))
        # The focus stays where one was.
        self.assertIn("question", page.focused().get_attribute("class"))

    def test_the_focus_is_always_to_be_seen(self):
        self.page.sample()
        self.page.ask("detect", "cloud")
        self.page.js("document.querySelector('.settings').open = true; document.body.focus()")
        seen = set()
        for _ in range(40):
            self.page.press(Keys.TAB)
            ring, name = self.page.js("""
                const node = document.activeElement;
                // The radio buttons lie invisibly over their names.
                const shown = node.type === 'radio' ? node.nextElementSibling : node;
                return [getComputedStyle(shown).outlineStyle, node.outerHTML];""")
            if name.startswith("<body"):
                continue
            self.assertEqual(ring, "solid", name)
            seen.add(name)
        # Header, form, settings, picture, and the answer with its tools.
        self.assertGreater(len(seen), 20)

    def test_an_empty_question_is_refused_where_it_belongs(self):
        self.page.sample()
        self.page.press(Keys.ENTER)
        self.page.wait(lambda: self.page.shown("#form-error"))
        self.assertEqual(self.page.text("#form-error"), "Write a question first.")
        self.assertEqual(self.page.focused().get_attribute("id"), "text")
        self.page.press("x")
        self.assertFalse(self.page.shown("#form-error"))


class Looks(PageTest):
    def test_the_page_follows_the_system_until_a_theme_is_chosen(self):
        self.page.open(self.server.address, scheme="light")
        self.assertGreater(self.page.background(), 200)
        self.page.prefer("dark")
        self.page.wait(lambda: self.page.background() < 60)
        self.page.click("#theme")  # light
        self.assertGreater(self.page.background(), 200)
        self.page.open(self.server.address, scheme="dark")
        self.assertGreater(self.page.background(), 200, "the choice is kept")
        self.page.click("#theme")  # dark
        self.page.prefer("light")
        self.assertLess(self.page.background(), 60)
        self.page.click("#theme")  # as the system
        self.page.wait(lambda: self.page.background() > 200)

    def test_nothing_is_wider_than_a_phone(self):
        for width in (390, 320):
            self.page.open(self.server.address, width, 700, touch=True)
            self.assertLessEqual(self.page.overflow(), 0)
            self.page.sample()
            self.page.ask("query", "supercalifragilisticexpialidocious" * 4)
            self.page.ask("detect", "cloud")
            self.page.js("for (const each of document.querySelectorAll('details')) each.open = true")
            self.assertLessEqual(self.page.overflow(), 0)
            self.page.js("document.getElementById('key-dialog').showModal()")
            self.assertLessEqual(self.page.overflow(), 0)

    def test_everything_comes_from_the_server_itself(self):
        self.page.sample()
        self.page.ask("caption")
        sources = self.page.js("return performance.getEntriesByType('resource').map(({name}) => name)")
        self.assertGreater(len(sources), 5)
        for source in sources:
            self.assertTrue(source.startswith((self.server.address, "blob:" + self.server.address)), source)
        with urllib.request.urlopen(self.server.address, timeout=60) as response:
            policy = response.headers["Content-Security-Policy"]
        self.assertIn("default-src 'none'", policy)
        self.assertNotIn("unsafe", policy)


def axe_source():
    """The accessibility checker, as bundled by the package axe-playwright-python."""
    spec = find_spec("axe_playwright_python")
    return spec and (Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8")


@unittest.skipUnless(find_spec("axe_playwright_python"), "axe is not installed: pip install --no-deps axe-playwright-python")
class Accessibility(PageTest):
    def violations(self):
        self.page.js(axe_source())
        found = self.page.driver.execute_async_script("""
            const done = arguments[0];
            axe.run({resultTypes: ['violations']}).then(({violations}) => done(violations.map(
                ({id, nodes}) => `${id}: ${nodes.map(({target}) => target).join(', ')}`)));""")
        return found

    def test_axe_has_no_complaint_about_any_state_in_light_and_dark(self):
        for scheme, width in (("light", 1280), ("dark", 1280), ("light", 390)):
            self.page.open(self.server.address, width, 800, scheme)
            with self.subTest(scheme=scheme, width=width, state="empty"):
                self.assertEqual(self.violations(), [])
            self.page.sample()
            self.page.ask("query", "How many clouds are there?")
            self.page.ask("detect", "cloud")
            self.page.js("fetch = async () => new Response('{}', {status: 504})")
            self.page.begin("query", "Why?")
            self.page.wait(lambda: self.page.all(".entry.failed"))
            self.page.js("[...document.querySelectorAll('.question')][1].click();"
                         "for (const each of document.querySelectorAll('details')) each.open = true")
            with self.subTest(scheme=scheme, width=width, state="answered"):
                self.assertEqual(self.violations(), [])
            self.page.js("document.getElementById('key-dialog').showModal()")
            with self.subTest(scheme=scheme, width=width, state="key"):
                self.assertEqual(self.violations(), [])

    def test_answers_and_errors_are_announced(self):
        self.page.sample()
        answer = self.page.ask("query", "How many clouds are there?")
        self.page.wait(lambda: self.page.js("return document.getElementById('live').textContent") == answer["answer"])
        self.page.js("fetch = async () => new Response('{}', {status: 504})")
        self.page.begin("query", "Why?")
        self.page.wait(lambda: "ran out of time" in self.page.js("return document.getElementById('live').textContent"))


class Failures(PageTest):
    def refuse(self, status, error, headers):
        """Lets the next requests of the page fail like this."""
        self.page.js("""
            const [status, error, headers] = arguments;
            fetch = async () => new Response(JSON.stringify({error}), {status, headers});""", status, error, headers)

    def test_each_refusal_is_told_in_words_that_help(self):
        self.page.sample()
        cases = [
            (400, {"message": "Field 'object' is too long"}, {}, "does not take this request. Field 'object' is too long", None),
            (404, {"message": "no model 'x'"}, {}, "does not have this. no model 'x'", None),
            (413, {"message": "at most 48 MiB"}, {}, "larger than this server takes. at most 48 MiB", "Send a smaller copy"),
            (429, {"message": "the queue is full"}, {"Retry-After": "3"}, "busy. the queue is full. It asks to wait 3 s.",
             "Try again"),
            (500, {"message": "a bug"}, {}, "The server failed (500). a bug", "Try again"),
            (501, {"message": "no", "code": "skill_not_supported"}, {}, "This model cannot do that.", None),
            (503, {"message": "loading"}, {"Retry-After": "1"}, "not ready. loading. It asks to wait 1 s.", "Try again"),
            (504, {"message": "60 s are over"}, {}, "ran out of time. 60 s are over", "Try again"),
        ]
        for status, error, headers, text, remedy in cases:
            with self.subTest(status=status):
                self.refuse(status, error, headers)
                self.page.begin("detect", "cloud")
                self.page.wait(lambda: self.page.all(".entry.open.failed"))
                self.assertIn(text, self.page.text(".entry.open .error"))
                buttons = [button.text for button in self.page.all(".entry.open .remedy")]
                self.assertEqual(buttons, [remedy] if remedy else [])
                self.page.click(".entry.open [data-do=remove]")

    def test_a_picture_too_large_is_sent_again_as_a_smaller_copy(self):
        self.page.sample()
        self.page.js("window.realFetch = fetch; fetch = async () => new Response('{}', {status: 413})")
        self.page.begin("detect", "cloud")
        self.page.wait(lambda: self.page.all(".entry.open.failed"))
        self.page.js("fetch = realFetch")
        self.page.click(".entry.open .remedy")
        self.page.wait(lambda: self.page.all(".entry.done"))
        self.assertIn("smaller copy", self.page.text("#picture-facts"))
        self.assert_marks_at(self.page.answer()["objects"])

    def test_a_stream_that_breaks_keeps_its_words_and_says_so(self):
        self.page.sample()
        self.page.js("""
            const event = 'data: ' + JSON.stringify({chunk: 'Half a', completed: false}) + '\\n\\n';
            fetch = async () => new Response(event, {headers: {'Content-Type': 'text/event-stream'}});""")
        self.page.begin("query", "Why?")
        self.page.wait(lambda: self.page.all(".entry.open.failed"))
        self.assertEqual(self.page.text(".entry.open .words"), "Half a")
        self.assertIn("broke before the answer was complete", self.page.text(".entry.open .error"))


class Stopping(PageTest):
    def start_server(self):
        proxy = HoldingProxy(Shared.server)
        self.addCleanup(proxy.close)
        return proxy

    def test_a_running_answer_is_stopped_its_words_kept_and_the_connection_closed(self):
        self.page.sample()
        for stop in (lambda: self.page.press(Keys.ESCAPE), lambda: self.page.click(".entry.open .stop")):
            self.page.begin("caption")
            self.page.wait(lambda: self.page.all(".entry.running") and self.page.text(".entry.running .words"))
            words = self.page.text(".entry.open .words")
            self.assertFalse(self.server.gone.is_set())
            stop()
            self.page.wait(lambda: self.page.all(".entry.open.stopped"))
            self.assertEqual(self.page.text(".entry.open .words"), words)
            self.assertIn("Stopped.", self.page.text(".entry.open .answer"))
            # That is how the server learns of it.
            self.page.wait(self.server.gone.is_set)
            self.server.gone.clear()

    def test_several_answers_run_at_once_and_each_has_its_own_stop(self):
        self.page.sample()
        self.page.begin("caption")
        self.page.begin("query", "How many clouds are there?")
        self.page.wait(lambda: len(self.page.all(".entry.running .words:not(:empty)")) == 2)
        self.page.click(".entry:not(.open) .stop")
        self.page.wait(lambda: len(self.page.all(".entry.stopped")) == 1)
        self.assertEqual(self.page.text(".entry.stopped .skill"), "Caption")
        self.assertEqual(len(self.page.all(".entry.running")), 1)


class Unreachable(PageTest):
    def start_server(self):
        return self.own_server()

    def test_a_server_that_is_gone_is_named_and_asked_again_when_it_is_back(self):
        self.page.sample()
        port = self.server.port
        self.server.stop()
        self.page.begin("detect", "cloud")
        self.page.wait(lambda: self.page.all(".entry.open.failed"))
        self.assertIn(f"No connection to the server. Nothing answers at 127.0.0.1:{port}.",
                      self.page.text(".entry.open .error"))
        self.own_server("--port", str(port))
        self.page.click(".entry.open .remedy")
        self.page.wait(lambda: self.page.all(".entry.done"))
        self.assertEqual(len(self.page.marks()), 2)


class Limits(PageTest):
    def start_server(self):
        return self.own_server("--max-body-mb", "1")

    def test_a_picture_over_the_servers_limit_is_sent_again_as_a_smaller_copy(self):
        self.page.sample()
        path = self.folder / "noise.png"
        path.write_bytes(self.page.noise(1200, 800))
        self.assertGreater(path.stat().st_size, 2 << 20)
        self.page.upload(path)
        self.page.begin("caption")
        self.page.wait(lambda: self.page.all(".entry.open.failed"))
        self.assertIn("The picture is larger than this server takes.", self.page.text(".entry.open .error"))
        self.page.click(".entry.open .remedy")
        self.page.wait(lambda: self.page.all(".entry.done"))
        self.assertEqual(self.page.text("#picture-name"), "noise-small.jpg")


class Adapters(PageTest):
    def start_server(self):
        path = self.folder / "adapter.safetensors"
        write_adapter(path)
        return self.own_server("--adapter", f"seaside={path}")

    def test_an_adapter_is_chosen_among_the_models(self):
        self.page.wait(lambda: len(self.page.all("#model option")) == 2)
        names = [option.text for option in self.page.all("#model option")]
        self.assertRegex(names[1], r"seaside \(adapter of .+\)")
        self.page.js("""
            window.sent = [];
            const real = fetch;
            fetch = (address, options) => { sent.push(options?.body ?? ''); return real(address, options); };""")
        self.page.sample()
        self.page.one("#model").send_keys(names[1])
        self.assertEqual(len(self.page.ask("detect", "cloud")["objects"]), 2)
        model = json.loads(self.page.js("return sent.at(-1)"))["model"]
        self.assertIn("seaside", model)
        self.assertIn(f'"model":"{model}"', self.page.copied("curl"))


def write_adapter(path):
    """An adapter for the model in the box that changes nothing: all its numbers are 0."""
    shapes = {"attn.qkv": (256, 768), "attn.proj": (256, 256), "mlp.fc1": (256, 768), "mlp.fc2": (768, 256)}
    header, size = {}, 0
    for layer in range(6):
        for name, (width, height) in shapes.items():
            for half, shape in (("A", (1, width)), ("B", (height, 1))):
                end = size + 4 * shape[0] * shape[1]
                header[f"text.blocks.{layer}.{name}.{half}"] = {
                    "dtype": "F32", "shape": shape, "data_offsets": (size, end)}
                size = end
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))


class Key(PageTest):
    KEY = "correct horse"

    def start_server(self):
        path = self.folder / "keys"
        path.write_text(self.KEY + "\n")
        return self.own_server("--api-key-file", str(path))

    def test_the_page_asks_for_the_key_and_keeps_it_for_the_tab_only(self):
        page = self.page
        page.wait(lambda: page.shown("#key-dialog"))
        page.press("wrong", Keys.ENTER)
        page.wait(lambda: page.shown("#key-reason"))
        self.assertIn("did not take the last one", page.text("#key-reason"))
        page.press(self.KEY, Keys.ENTER)
        page.wait(lambda: page.shown("#model-box"))
        page.sample()
        self.assertEqual(len(page.ask("detect", "cloud")["objects"]), 2)
        self.assertNotIn(self.KEY, page.js("return JSON.stringify(localStorage) + document.cookie"))
        # The key is in no copied text; what is copied takes it from the environment.
        for kind in ("curl", "python", "json"):
            self.assertNotIn(self.KEY, page.copied(kind))
        shutil.copy(PICTURE, self.folder)
        printed = subprocess.run(["sh", "-c", page.copied("curl")], cwd=self.folder, check=True, capture_output=True,
                                 env={**os.environ, "FOVEA_API_KEY": self.KEY}, timeout=120).stdout
        self.assertEqual(len(json.loads(printed)["objects"]), 2)
        page.open(self.server.address)
        page.wait(lambda: page.shown("#model-box"))
        page.click("#key")
        page.click("#key-forget")
        page.wait(lambda: page.shown("#key-dialog"))
        page.press(Keys.ESCAPE)
        page.sample()
        page.begin("detect", "cloud")
        page.wait(lambda: page.all(".entry.failed") and page.shown("#key-dialog"))
        page.press(self.KEY, Keys.ENTER)
        page.wait(lambda: page.all(".entry.done"))


if __name__ == "__main__":
    program.main()
