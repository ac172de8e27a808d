export function ScoresView() { return <p class="note">not yet</p>; }
