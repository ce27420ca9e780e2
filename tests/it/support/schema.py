"""Whether messages fit a part of a JSON Schema (2020-12): `schema.py FILE < lines`.

Each line is a JSON list: the name of the part in $defs, and the message as text. Prints a line for each: `ok`, or why not.
The schema itself is checked first.
"""

import json
import sys

from jsonschema import Draft202012Validator

with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
Draft202012Validator.check_schema(schema)
for line in sys.stdin:
    part, text = json.loads(line)
    whole = {"$schema": schema["$schema"], "$ref": f"#/$defs/{part}", "$defs": schema["$defs"]}
    try:
        error = next(Draft202012Validator(whole).iter_errors(json.loads(text)), None)
        print("ok" if error is None else " ".join(error.message.split()))
    except ValueError as error:
        print(f"no JSON: {error}")
