"""A check as JUnit XML, which every CI system shows."""

import re
from xml.etree import ElementTree as ET

from g2sd_deploy.gates.checking import Checked

_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_text(checked: Checked, run: str) -> str:
    """One test suite; a case for each gate.

    Args:
        checked: The check.
        run: What was checked, for the suite's name.

    Source: the schema of the Jenkins xUnit plugin, https://github.com/jenkinsci/xunit-plugin, junit-10.xsd.
    """
    fails = [gate for gate in checked.gates if checked.fails(gate)]
    skips = [gate for gate in checked.gates if gate.verdict == "not_run" and gate not in fails]
    counts = {"tests": str(len(checked.gates)), "failures": str(len(fails)), "errors": "0", "skipped": str(len(skips))}
    root = ET.Element("testsuites", counts)
    suite = ET.SubElement(root, "testsuite", {"name": _clean(f"g2sd check {run}"), **counts, "time": "0"})
    for gate in checked.gates:
        case = ET.SubElement(suite, "testcase", {"classname": f"g2sd.{gate.kind}", "name": _clean(gate.name), "time": "0"})
        if gate in fails:
            ET.SubElement(case, "failure", {"type": gate.verdict, "message": _clean(gate.told)}).text = _clean(gate.told)
        elif gate in skips:
            ET.SubElement(case, "skipped", {"message": _clean(gate.told)})
        else:
            ET.SubElement(case, "system-out").text = _clean(gate.told)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    """Without what XML 1.0 cannot hold."""
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
