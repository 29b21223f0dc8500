"""A headless Chromium for the tests of the page, driven through Selenium."""

import base64
import shutil
import struct

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

# A sanitized server on a busy machine is slow; the tests wait for conditions, and only as long as needed.
TIMEOUT_S = 120


def start(downloads):
    """A new browser that saves what is downloaded to this folder and may use the clipboard."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    # The sandbox needs rights that containers often lack; the only pages opened are ours.
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    driver.execute_cdp_cmd("Browser.grantPermissions",
                           {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]})
    return driver


class Page:
    """The page in a browser, as a person uses it."""

    def __init__(self, driver):
        self.driver = driver

    # ---- the window ----

    def open(self, address, width=1280, height=800, scheme="light", touch=False):
        self.resize(width, height, touch)
        self.prefer(scheme)
        self.driver.get(address)
        self.wait(lambda: self.js("return document.readyState === 'complete'"))

    def resize(self, width, height, touch=False):
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch})
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": touch})

    def prefer(self, scheme):
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": scheme}]})

    # ---- looking ----

    def js(self, script, *args):
        return self.driver.execute_script(script, *args)

    def wait(self, condition):
        """Waits until the condition holds and returns its value."""
        return WebDriverWait(self.driver, TIMEOUT_S, poll_frequency=0.05).until(lambda _: condition())

    def one(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.one(selector).text

    def shown(self, selector):
        return any(element.is_displayed() for element in self.all(selector))

    def focused(self):
        return self.driver.switch_to.active_element

    def overflow(self):
        """By how many pixels the content is wider than the window."""
        return self.js("return document.documentElement.scrollWidth - innerWidth")

    def background(self):
        """The brightness of the page's ground, 0 to 255."""
        return self.js("""
            const canvas = new OffscreenCanvas(1, 1).getContext('2d');
            canvas.fillStyle = getComputedStyle(document.body).backgroundColor;
            canvas.fillRect(0, 0, 1, 1);
            return canvas.getImageData(0, 0, 1, 1).data[0];""")

    def marks(self):
        """Every mark on the picture as fractions of the picture as it is shown: left, top, right, bottom."""
        return self.js("""
            const frame = document.getElementById('image').getBoundingClientRect();
            return [...document.querySelectorAll('.mark')].map((mark) => {
              const box = mark.getBoundingClientRect();
              return [(box.left - frame.left) / frame.width, (box.top - frame.top) / frame.height,
                      (box.right - frame.left) / frame.width, (box.bottom - frame.top) / frame.height];
            });""")

    def answer(self):
        """The JSON that the opened entry shows."""
        return self.js("return JSON.parse(document.querySelector('.entry.open pre').textContent)")

    def severe(self):
        """Errors of scripts and of the content policy since the last call; refused requests are not among them."""
        return [line["message"] for line in self.driver.get_log("browser")
                if line["level"] == "SEVERE" and "Failed to load resource" not in line["message"]]

    # ---- acting ----

    def click(self, selector):
        element = self.one(selector)
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def press(self, *keys):
        actions = webdriver.ActionChains(self.driver)
        for key in keys:
            actions.send_keys(key)
        actions.perform()

    def tab_to(self, selector, most=40):
        """Tabs on until the element has the focus."""
        for _ in range(most):
            if self.js("return document.activeElement.matches(arguments[0])", selector):
                return
            self.press(Keys.TAB)
        raise AssertionError(f"the Tab key does not get to {selector}")

    def upload(self, path):
        self.one("#file").send_keys(str(path))
        self.wait(lambda: self.shown("#figure") and self.text("#picture-name") == path.name)

    def sample(self):
        self.click("[data-do=sample]")
        self.wait(lambda: self.shown("#figure"))

    def skill(self, name):
        self.js("document.querySelector(`[name=skill][value=${arguments[0]}]`).click()", name)

    def begin(self, skill, text=None):
        """Asks and does not wait for the answer."""
        self.skill(skill)
        if text is not None:
            field = self.one("#text")
            field.clear()
            field.send_keys(text)
        self.click("#go")

    def ask(self, skill, text=None):
        """Asks, waits until nothing runs any more, and returns the answer's JSON."""
        self.begin(skill, text)
        self.wait(lambda: not self.all(".entry.running"))
        return self.answer()

    def copied(self, kind):
        """Copies the opened answer as curl, python or json, and returns what is on the clipboard then."""
        self.click(f".entry.open [data-copy={kind}]")
        self.wait(lambda: self.text(f".entry.open [data-copy={kind}]") == "Copied")
        return self.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")

    def noise(self, width, height):
        """A PNG of random pixels, which no server has seen before."""
        encoded = self.js("""
            const canvas = document.createElement('canvas');
            [canvas.width, canvas.height] = arguments;
            const context = canvas.getContext('2d');
            const pixels = context.createImageData(canvas.width, canvas.height);
            for (let i = 0; i < pixels.data.length; i += 65536) {
              crypto.getRandomValues(pixels.data.subarray(i, i + 65536));
            }
            for (let i = 3; i < pixels.data.length; i += 4) pixels.data[i] = 255;
            context.putImageData(pixels, 0, 0);
            return canvas.toDataURL('image/png').split(',')[1];""", width, height)
        return base64.b64decode(encoded)

    def jpeg_on_its_side(self, path):
        """Writes the shown picture as a JPEG that is stored turned by 90 degrees, its EXIF data saying so."""
        encoded = self.js("""
            const image = document.getElementById('image');
            const canvas = document.createElement('canvas');
            canvas.width = image.naturalHeight;
            canvas.height = image.naturalWidth;
            const context = canvas.getContext('2d');
            context.rotate(-Math.PI / 2);
            context.drawImage(image, -image.naturalWidth, 0);
            return canvas.toDataURL('image/jpeg', 0.95);""")
        jpeg = base64.b64decode(encoded.split(",")[1])
        # One directory with one entry: orientation (274), a short: 6, "the first row is the right side".
        tiff = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 274, 3, 1, 6, 0, 0)
        segment = b"Exif\0\0" + tiff
        path.write_bytes(jpeg[:2] + struct.pack(">HH", 0xFFE1, len(segment) + 2) + segment + jpeg[2:])
