"""tools/check_includes.py on small trees: what it lets through and what it reports."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import check_includes  # noqa: E402

TABLE = """# Architecture
## 2. Who may include whom
| folder | may include |
|---|---|
| `base` | `fovea/result.h`, `boost/json` |
| `backend` | `base` |
| `backend/cpu` | `base`, `backend` |
| `include/fovea` | nothing |
| `apps/cli` | `include/fovea` |
## 3. Later
| `base` | `zlib.h` |
"""


class CheckIncludes(unittest.TestCase):
    def breaches(self, files, table=TABLE):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "ARCHITECTURE.md").write_text(table)
            for name, text in files.items():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return check_includes.check(root)

    def test_allowed(self):
        self.assertEqual(self.breaches({
            "src/base/a.h": '#include <vector>\n#include <sys/mman.h>\n#include "fovea/result.h"\n',
            "src/base/b.cpp": '#include "base/a.h"\n#include <boost/json.hpp>\n#include <boost/json/value.hpp>\n',
            "src/backend/cpu/isa/c.cpp": '#include <immintrin.h>\n#include "backend/ops.h"\n#include "backend/cpu/x.h"\n',
            "include/fovea/engine.h": '#include "fovea/result.h"\n',
            "apps/cli/args.h": '#include "fovea/engine.h"\n',
            "apps/cli/args.cpp": '#include "args.h"\n',
        }), [])

    def test_refused(self):
        for name, include, folder in [
            ("src/base/a.h", '"fovea/engine.h"', "base"),
            ("src/base/a.h", '"backend/ops.h"', "base"),
            ("src/base/a.h", "<zlib.h>", "base"),
            ("src/base/a.h", "<boost/asio.hpp>", "base"),
            ("src/base/a.h", "<boost/jsonnet.hpp>", "base"),
            ("src/backend/a.h", '"backend/cpu/x.h"', "backend"),
            ("src/backend/a.h", '"fovea/result.h"', "backend"),
            ("apps/cli/args.cpp", '"base/a.h"', "apps/cli"),
            ("apps/cli/args.cpp", '"missing.h"', "apps/cli"),
        ]:
            with self.subTest(name=name, include=include):
                self.assertEqual(
                    self.breaches({name: f"// first\n  #  include {include}\n"}),
                    [f"{name}:2: `{folder}` may not include {include.strip(chr(34) + '<>')}"])

    def test_folder_without_a_row(self):
        self.assertEqual(self.breaches({"src/new/a.h": ""}),
                         ["src/new/a.h: its folder has no row in ARCHITECTURE.md"])

    def test_broken_tables(self):
        for table in ["# Nothing here\n", "# Who may include whom\nsoon\n",
                      "# Who may include whom\n| `a` | `b` |\n| `a` | `c` |\n"]:
            with self.subTest(table=table), self.assertRaises(ValueError):
                self.breaches({}, table)


if __name__ == "__main__":
    unittest.main()
