// The calculator's page: sends calculations, and asks for news of those that are open. All text from others goes into
// the page as text, never as markup.
'use strict';

(() => {
  const form = document.getElementById('form');
  if (!form) return;
  const field = document.getElementById('text');
  const button = form.querySelector('button');
  const refused = document.getElementById('refused');
  const list = document.getElementById('list');
  const none = document.getElementById('none');
  const link = document.getElementById('link');
  const news = document.getElementById('news');
  const csrf = document.querySelector('meta[name=csrf]').content;

  const MOST = 50; // calculations on the page, and open ones in a question
  const SOON_MS = 700;
  const LATE_MS = 10000;
  const STATES = { waiting: 'waiting', computing: 'computing', answered: 'answered', error: 'error' };
  const shown = new Map(); // id -> { item, row }
  let pause = SOON_MS;
  let timer = 0;
  let asking = false;
  let loaded = false;

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function isOpen(row) {
    return row.state === 'waiting' || row.state === 'computing';
  }

  function place(one) {
    if (!one.language) return one.name;
    return one.language + ' ' + one.version + ' on ' + one.os;
  }

  function whereabouts(row) {
    const names = row.where.map(place).join(', ');
    if (row.state === 'waiting') {
      const wanted = [row.wanted.language, row.wanted.os].filter(Boolean).join(' on ');
      return 'for ' + (wanted || 'any environment');
    }
    if (!names) return '';
    return (row.state === 'computing' ? 'in ' : 'by ') + names + (row.account ? ', at ' + row.account : '');
  }

  function opinions(row) {
    const made = element('ul', 'opinions');
    for (const one of row.opinions) {
      const wrong = row.disagreed.includes(one.environment);
      const line = element('li', wrong ? 'wrong' : '');
      line.append(element('span', '', one.environment + (wrong ? ': disagrees' : '')), element('code', '', one.answer));
      made.append(line);
    }
    return made;
  }

  function draw(item, row) {
    item.className = 'item ' + STATES[row.state];
    item.dataset.id = row.id;
    const sum = element('p', 'sum');
    sum.append(element('span', 'typed', row.calculation));
    if (row.state === 'answered') sum.append(element('span', 'answer', '= ' + row.answer));
    const meta = element('p', 'meta');
    const when = element('time', '', new Date(row.asked).toLocaleTimeString());
    when.dateTime = row.asked;
    meta.append(element('span', 'state', STATES[row.state]), element('span', 'where', whereabouts(row)), when);
    item.replaceChildren(sum);
    if (row.state === 'error') item.append(element('p', 'said', row.error));
    item.append(meta);
    if (row.opinions.length) item.append(opinions(row));
  }

  function tell(row) {
    if (row.state === 'answered') news.textContent = row.calculation + ' is ' + row.answer;
    if (row.state === 'error') news.textContent = row.calculation + ': ' + row.error;
  }

  function put(row) {
    const known = shown.get(row.id);
    if (known && JSON.stringify(known.row) === JSON.stringify(row)) return;
    const item = known ? known.item : element('li');
    draw(item, row);
    if (known && isOpen(known.row)) tell(row);
    shown.set(row.id, { item, row });
    if (known) return;
    const next = [...list.children].find((other) => other.dataset.id < row.id);
    list.insertBefore(item, next || null);
  }

  function take(rows) {
    rows.forEach(put);
    while (list.children.length > MOST) {
      shown.delete(list.lastChild.dataset.id);
      list.lastChild.remove();
    }
    none.hidden = list.children.length > 0;
  }

  async function call(path, options) {
    const answer = await fetch(path, { credentials: 'same-origin', cache: 'no-store', ...options });
    if (answer.status === 401) {
      location.assign('/sign-in');
      throw new Error('The session has ended.');
    }
    let said = {};
    try {
      said = await answer.json();
    } catch {
      // A proxy in front may answer with a page of its own.
    }
    if (!answer.ok) throw new Error(said.error || 'The server answered with ' + answer.status + '.');
    return said;
  }

  async function ask() {
    clearTimeout(timer);
    if (asking || document.hidden) return;
    asking = true;
    try {
      const open = [...shown.values()].filter((one) => isOpen(one.row)).map((one) => one.row.id);
      const newest = list.firstChild ? list.firstChild.dataset.id : '';
      const query = new URLSearchParams();
      if (loaded && newest) query.set('after', newest);
      if (open.length) query.set('open', open.slice(0, MOST).join(','));
      take((await call('/calculations?' + query)).calculations);
      loaded = true;
      link.textContent = '';
      const still = [...shown.values()].some((one) => isOpen(one.row));
      pause = still ? SOON_MS : Math.min(LATE_MS, pause * 1.5);
    } catch (error) {
      link.textContent = error instanceof TypeError ? 'The server does not answer; trying again.' : error.message;
      pause = Math.min(LATE_MS, pause * 2);
    }
    asking = false;
    timer = setTimeout(ask, pause);
  }

  function refuse(sentence) {
    refused.textContent = sentence;
    refused.hidden = !sentence;
    field.toggleAttribute('aria-invalid', false);
    if (sentence) field.setAttribute('aria-invalid', 'true');
  }

  function newId() {
    return [...crypto.getRandomValues(new Uint8Array(16))].map((one) => one.toString(16).padStart(2, '0')).join('');
  }

  // Sent again after an answer that was lost, a calculation keeps its id: it is computed once.
  let unanswered = null;

  async function send(event) {
    event.preventDefault();
    const check = document.getElementById('check');
    const body = {
      calculation: field.value,
      os: document.getElementById('os').value,
      language: document.getElementById('language').value,
      check: Boolean(check && check.checked),
    };
    const same = unanswered && JSON.stringify(unanswered.body) === JSON.stringify(body);
    const id = same ? unanswered.id : newId();
    unanswered = { id, body };
    button.disabled = true;
    try {
      const row = await call('/calculations', {
        method: 'POST',
        headers: { 'Content-Type': 'application/json', 'Dockercomp-Csrf': csrf },
        body: JSON.stringify({ ...body, id }),
      });
      unanswered = null;
      take([row]);
      refuse('');
      field.select();
      pause = SOON_MS;
      ask();
    } catch (error) {
      if (!(error instanceof TypeError)) unanswered = null;
      refuse(error instanceof TypeError ? 'The server does not answer; send it again.' : error.message);
      field.focus();
    }
    button.disabled = false;
  }

  form.addEventListener('submit', send);
  field.addEventListener('input', () => refuse(''));
  document.addEventListener('visibilitychange', () => {
    pause = SOON_MS;
    ask();
  });
  ask();
})();
