# make demo: install, then hear and read what the toolkit does. make test: install with test extras, run the tests.
PYTHON ?= python3
VENV := .venv
EXTRAS := test,demo

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	$(VENV)/bin/cdasr demo --output-dir results/demo

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .

$(VENV)/.installed: setup.py
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf $(VENV) results build *.egg-info
